"""One measurement of the PyTorch reference in a process of its own; `bench_compare.py` starts it."""

import json
import sys
from pathlib import Path

import workload
from golden import recipe
from workload import Options


def network(options):
    """The reference with recipe weights."""
    import torch_loop
    import torch_reference

    if options.fused:
        torch_reference.use_fused_attention()
    model = torch_reference.DATTT(options.backbone)
    weights = {name: recipe.fill(name, value.shape) for name, value in model.state_dict().items()}
    torch_reference.load_numpy(model, {name: value for name, value in weights.items() if value is not None})
    return torch_loop.Network(model, options.size, options.device, options.bfloat16, options.compiled)


def ttt_step(options):
    import torch_loop

    adaptation = torch_loop.TestTimeTraining(network(options), options.batch)
    images, _ = workload.video(1)
    return lambda: adaptation.step(images[0])


def train_step(options):
    """Without augmentation, which the authors' data loader does in processes of its own."""
    import torch
    import torch_loop

    reference = network(options)
    training, batch = torch_loop.Training(reference), workload.training_batch(options.batch, options.size)
    images = [torch_loop.normalized(batch[name], options.device) for name in ("image", "flow")]
    targets = [torch.from_numpy(batch[name]).permute(0, 3, 1, 2).to(options.device).float()
               for name in ("mask", "depth")]
    return lambda: training.step(*images, *targets)


def base_frame(options):
    reference = network(options)
    images, flows = workload.video(1)
    return lambda: reference.predict(images[0], flows[0])


def video(options):
    import torch_loop

    adaptation = torch_loop.TestTimeTraining(network(options), options.batch)
    images, flows = workload.video(options.frames)
    strategy = options.what.removeprefix("video_")

    def work():
        for _ in adaptation.video(images, flows, strategy, options.steps):
            pass

    return work


def flow(options):
    """One pair of frames through torchvision's RAFT (small)."""
    import torch
    import torch_reference
    from golden import raft_recipe
    from torchvision.models.optical_flow import raft_small

    model = raft_small().eval().to(options.device)
    names = json.loads((Path(recipe.__file__).parent / "raft_keys.json").read_text())
    shapes = names["raft_small"]
    torch_reference.load_numpy(model, {name: raft_recipe.weight(author, shapes[author]) for author, name
                                       in names["author_to_torchvision_small"].items()})
    images, _ = workload.video(2)
    height, width = (-(-side // 8) * 8 for side in workload.FRAME)
    pad = (0, width - workload.FRAME[1], 0, height - workload.FRAME[0])

    @torch.no_grad()
    def work():
        pair = [torch.from_numpy(x[None]).permute(0, 3, 1, 2).to(options.device).float() / 127.5 - 1
                for x in images]
        pair = [torch.nn.functional.pad(x, pad, mode="replicate") for x in pair]
        with torch.autocast(options.device, torch.bfloat16, enabled=options.bfloat16):
            return model(*pair, num_flow_updates=workload.RAFT_ITERATIONS)[-1].float().cpu()

    return work


def metrics(options):
    """J and boundary F of four pairs of masks, dilated as the DAVIS toolkit does."""
    from bench_metrics import cases
    from mask_reference import reference_boundary_f

    pairs = list(cases().values())

    def work():
        for prediction, target in pairs:
            (prediction & target).sum() / max((prediction | target).sum(), 1)
            reference_boundary_f(prediction, target)

    return work


WORK = {"ttt_step": ttt_step, "train_step": train_step, "base_frame": base_frame, "flow": flow,
        "metrics": metrics}


def main():
    options = Options.from_command_line()
    if options.what == "metrics":
        workload.answer(options, metrics(options), device="cpu", peak_gib=None, matrix_product=None)
        return
    import torch

    if options.tuned:
        torch.set_float32_matmul_precision("high")
    try:
        work = WORK.get(options.what, video)(options)
    except ModuleNotFoundError as error:
        print(json.dumps({"skipped": f"{error.name} is not installed"}))
        sys.exit()
    on_gpu = options.device == "cuda"

    def synchronized(work):
        def run():
            work()
            if on_gpu:
                torch.cuda.synchronize()

        return run

    def matrix_product():
        dtype = torch.bfloat16 if options.bfloat16 else torch.float32
        matrix = torch.randn(options.matrix, options.matrix, dtype=dtype, device=options.device)
        return synchronized(lambda: matrix @ matrix)

    workload.answer(options, synchronized(work), device=torch.cuda.get_device_name() if on_gpu else "cpu",
                    matrix_product=matrix_product,
                    peak_gib=(lambda: torch.cuda.max_memory_allocated() / 2**30) if on_gpu else None)


if __name__ == "__main__":
    main()
