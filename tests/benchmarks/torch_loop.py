"""DATTT's loops in PyTorch, in the authors' order: what a user of the original waits for.

Of every step of test-time training: eight augmentations on the CPU, two network calls, backward, Adam, and a
prediction of the frame. Random numbers are drawn as the original draws them, so that seeded runs can be
compared with its numbers (`tests/test_torch_reference.py`).
"""

import copy
import random
from contextlib import nullcontext
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalized(images, device):
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] on the device."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(device).float() / 255
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (MEAN, STD))
    return (x - mean) / std


def resized(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def random_crop(frame, size):
    """Flip, resize by 1.05 to 1.5 times the crop, crop: uint8 [H, W, 3] -> [size, size, 3]."""
    if random.random() < 0.5:
        frame = frame[:, ::-1]
    height, width = (random.randint(int(1.05 * size), int(1.5 * size)) for _ in range(2))
    frame = cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=cv2.INTER_CUBIC)
    top, left = (np.random.randint(0, side - size + 1) for side in (height, width))  # noqa: NPY002
    return frame[top : top + size, left : left + size]


def photometric(images):
    """Brightness, contrast and saturation: amounts drawn once, coins per image; uint8 [B, H, W, 3]."""
    brightness, contrast = random.uniform(-32, 32), random.uniform(0.5, 1.5)
    saturation, _hue = random.uniform(0.5, 1.5), random.randint(-18, 18)  # the hue is drawn and not used

    def scaled(image, alpha, beta):
        return np.clip(image.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    def saturated(image):
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)  # of RGB, as in the original
        hsv[..., 1] = scaled(hsv[..., 1], saturation, 0)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def some(images, change):
        return [change(image) if np.random.uniform() < 0.5 else image for image in images]  # noqa: NPY002

    images = some(images, lambda image: scaled(image, 1, brightness))
    contrast_first = np.random.uniform() < 0.5  # noqa: NPY002
    if contrast_first:
        images = some(images, lambda image: scaled(image, contrast, 0))
    images = some(images, saturated)
    if not contrast_first:
        images = some(images, lambda image: scaled(image, contrast, 0))
    return np.stack(images)


def silog(prediction, target):
    valid = target > 0
    g = torch.log(prediction[valid] + 1e-3) - torch.log(target[valid] + 1e-3)
    return torch.sqrt(torch.var(g) + 0.15 * torch.mean(g) ** 2)


class Network:
    """The network on a device, perhaps under autocast and compiled.

    Args:
        model: a `torch_reference.DATTT` with its weights.
        size: height and width it sees.
        device: 'cpu' or 'cuda'.
        bfloat16: run it under autocast.
        compiled: run it through torch.compile.
    """

    def __init__(self, model, size, device="cpu", bfloat16=False, compiled=False):
        self.model, self.size, self.device = model.to(device), size, device
        self.autocast = partial(torch.autocast, device, torch.bfloat16) if bfloat16 else nullcontext
        prepare = torch.compile if compiled else lambda function: function
        self.forward, self.depth = prepare(model.forward), prepare(model.depth)

    @torch.no_grad()
    def predict(self, image, flow):
        """Probability [H, W] of one frame and its flow rendering, uint8 [H, W, 3]."""
        self.model.eval()
        inputs = [resized(normalized(x[None], self.device), (self.size, self.size)) for x in (image, flow)]
        with self.autocast():
            mask, _ = self.forward(*inputs)
        return torch.sigmoid(resized(mask.float(), image.shape[:2]))[0, 0].cpu().numpy()


class TestTimeTraining:
    """Adam on the image encoder, by depth consistency of two views."""

    def __init__(self, network, batch, learning_rate=1e-5):
        self.network, self.batch, self.learning_rate = network, batch, learning_rate
        self.encoder = network.model.encoder_image
        network.model.requires_grad_(False)  # no gradient is computed that nobody needs
        self.encoder.requires_grad_(True)
        self._source = copy.deepcopy(network.model.state_dict())
        self.reset()

    def reset(self):
        """Source weights and a fresh optimiser."""
        self.network.model.load_state_dict(self._source)
        self.optimizer = torch.optim.Adam(self.encoder.parameters(), lr=self.learning_rate)

    def views(self, image):
        """Two views of the same crops, normalised."""
        crops = [random_crop(image, self.network.size) for _ in range(self.batch)]
        return [normalized(photometric(crops), self.network.device) for _ in range(2)]

    def step(self, image):
        """One gradient step on a frame uint8 [H, W, 3]; returns the loss."""
        reference, augmented = self.views(image)
        self.network.model.train()
        with self.network.autocast():
            target, prediction = self.network.depth(reference), self.network.depth(augmented)
        loss = silog(torch.sigmoid(prediction.float()), torch.sigmoid(target.float()))
        if loss != 0:
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.item()

    def video(self, images, flows, strategy, steps, groups=10):
        """Yields (frame, loss, probability) after every step, in the authors' order."""
        if strategy == "base":
            for t in range(len(images)):
                yield t, None, self.network.predict(images[t], flows[t])
            return
        groups = groups if strategy.startswith("grouped") else 1
        for group in range(min(groups, len(images))):
            self.reset()
            frames = range(group, len(images), groups)
            if strategy.endswith("ltv"):
                visits = [(t, False) for _ in range(steps) for t in frames]
            else:
                visits = [(t, strategy == "n" and step == 0) for t in frames for step in range(steps)]
            for t, fresh in visits:
                if fresh:
                    self.reset()
                loss = self.step(images[t])
                yield t, loss, self.network.predict(images[t], flows[t])


class Training:
    """AdamW on everything, by BCE of the mask + 0.1 · SILog of the depth."""

    def __init__(self, network):
        self.network = network
        network.model.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(network.model.parameters(), lr=6e-5, weight_decay=0.01)

    def step(self, image, flow, mask, depth):
        """One step on float32 [B, 3 or 1, H, W], normalised, on the device; returns the loss."""
        self.network.model.train()
        with self.network.autocast():
            logits = self.network.forward(image, flow)
        mask_logits, depth_logits = (resized(x.float(), mask.shape[2:]) for x in logits)
        loss = F.binary_cross_entropy_with_logits(mask_logits, mask)
        loss = loss + 0.1 * silog(torch.sigmoid(depth_logits), depth)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
