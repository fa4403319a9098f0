# %% [markdown]
# # 5 · Distilling a light field: one pass instead of a march
#
# **Question.** A radiance field is asked at a hundred points along every ray. Can a small network be trained to give
# the pixel from the ray itself, in one pass, as the neural chips of phones like it?
#
# **Predict.** Two students learn from the same teacher for the same 90 seconds on two CPU cores. One is a plain
# network, the other looks up learned pictures on a dozen planes. How many dB will lie between them? And how many
# kilobytes of the teacher itself, pruned and quantized without any training, would show as much?
#
# **Time.** 5 minutes on two CPU cores; a GPU would give many more steps in the same time.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb); trained if missing.

# %%
import itertools

import crowdnerf_lab as cn
from crowdnerf_lab.coding.baked_stream import coded_baked
from crowdnerf_lab.fields.baking import TIERS, view_cell
from crowdnerf_lab.light_fields.planes import planes_through

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
scene = bench.scene()
field = bench.field()
views = bench.views()

# %% [markdown]
# ## From a function of points to a function of rays
#
# A *light field* $L(o, d)$ is the colour that is seen along a ray. A radiance field computes it as a sum over points,
# $L(o,d)=\sum_i w_i c_i$; the student approximates $L$ directly. In the form of R2L and MobileR2L (Wang et al. 2022,
# Cao et al. 2023), here `ray_mlp`, a ray enters a network as the points where it meets eight planes across the scene,
# each coordinate with the sines and cosines of its multiples. The network works on a small image of rays and gives
# 8 × 8 pixels for each, so that one pass of 1 × 1 convolutions paints a whole frame (S9).
#
# `plane_features` meets the planes too, and finds on each a small picture of learned features, which it reads where
# the ray passes (a multiplane image, Zhou et al. 2018, whose blending is learned). `light_slab` says a ray by its two
# crossings $(u, v)$ and $(s, t)$ with two planes and reads six pictures, one for each pair of these coordinates
# (LightSpeed, Gupta et al. 2023). Each family comes in sizes.

# %%
names = ("ray_mlp XS", "ray_mlp S", "ray_mlp M", "ray_mlp L", "plane_features XS", "plane_features S", "light_slab S")
untrained = {name: bench.untrained_student(name) for name in names}
r2l = cn.RayMLP(planes_through(field, scene.cameras[scene.train], scene.bounds), "S", cell=1)
pixels = bench.preset.view_width * bench.preset.view_height
cn.figures.table(
    {
        "student": name,
        "what it is": model.architecture,
        "numbers": sum(weights.numel() for weights in model.parameters()),
        "rays a frame": pixels // model.cell**2,
    }
    for name, model in [("R2L", r2l), *untrained.items()]
)

# %% [markdown]
# R2L asks one ray a pixel. MobileR2L's step was to draw 8 × 8 pixels for each ray: the same network runs 64 times less
# often. Students are small because they must be downloaded, and fixed in shape because a phone's neural chip runs
# convolutions and little else (S10). L is the paper's own size, distilled there on four GPUs.
#
# ## Distillation
#
# The crowd's photos are too few to learn a function of rays from. The teacher makes more: *pseudo views* from between
# and around the phones, in neutral colours, without arms and without noise. The student minimises $\lVert
# L_\theta(\text{ray}) - C_{\text{teacher}}(\text{ray}) \rVert^2$ over them.

# %%
distilled = {name: bench.distilled(name) for name in bench.preset.students[:2]}
plain, planes = distilled
cn.figures.training_curve(
    {name: each.history for name, each in distilled.items()}, title="Students against their teacher, held-out views"
)

# %% [markdown]
# Rendering the pseudo views comes before the curve's first second. The curve measures against the *teacher*: how well
# a student imitates, not how well either knows the stage.
#
# ## Truth, teacher, students

# %%
pictures = {"teacher": bench.renders(field)} | {name: bench.renders(each.student) for name, each in distilled.items()}
cn.figures.image_strip(
    {"truth": views.truths[0]} | {name: shown[0] for name, shown in pictures.items()}, truth=views.truths[0], columns=2
)

# %% [markdown]
# Look at the words on the screen. A plain network is a smooth function of the ray; at an edge it must change quickly,
# in exactly the right place for every camera at once, and every weight takes part in every pixel. A picture on a plane
# is local: what it learns of one letter disturbs no other. Each ray draws its cell of pixels for itself and sees no
# neighbour, so cells show as seams.

# %%
score = {name: cn.quality(shown, list(views.truths)) for name, shown in pictures.items()}
imitation = {name: cn.quality(shown, pictures["teacher"]).psnr for name, shown in pictures.items() if name != "teacher"}
cn.figures.table(
    {"model": name, "PSNR to truth": each.psnr, "SSIM": each.ssim, "ꟻLIP": each.flip, "to teacher": imitation.get(name)}
    for name, each in score.items()
)

# %%
for name in distilled:
    print(f"{name} lies {score['teacher'].psnr - score[name].psnr:.1f} dB below its teacher against the truth.")

# %% [markdown]
# The mean of many slightly wrong pictures is smooth, and PSNR likes smooth pictures: against the truth a student can
# come closer to its teacher than the eye would say. SSIM and the column *to teacher* are stricter.
#
# ## The other way to a device: bake the field itself
#
# Nothing forces a device to run a network. *Baked*, the field is cut to what the crowd's cameras see, and every number
# of it is rounded as coarsely as the pictures forgive: `bake` asks how much each matters (a diagonal Gauss-Newton
# estimate over rays of the phones), and spends bits where they buy the most. It takes seconds and no training; every
# pixel is still marched (S25, S43).

# %%
cameras = scene.cameras[scene.train]
importance = bench.importance(cameras)
ladder = {
    tier.name: cn.bake(field, cameras=cameras, max_bytes=tier.max_bytes, importance=importance)
    for tier in TIERS
    if tier.max_bytes is not None
}
by_baked = {name: bench.renders(baked) for name, baked in ladder.items()}
cn.figures.image_strip(
    {"truth": views.truths[0]} | {f"baked, {name}": shown[0] for name, shown in by_baked.items()},
    truth=views.truths[0],
    columns=2,
)

# %%
kilobytes = {name: len(coded_baked(baked)) / 1e3 for name, baked in ladder.items()}
score |= {f"baked, {name}": cn.quality(shown, list(views.truths)) for name, shown in by_baked.items()}
cn.figures.table(
    {
        "model": f"baked, {name}",
        "kB over the air": kilobytes[name],
        "levels": len(baked.resolutions),
        "rows kept": len(baked.values),
        "PSNR to truth": score[f"baked, {name}"].psnr,
        "below the teacher, dB": score["teacher"].psnr - score[f"baked, {name}"].psnr,
    }
    for name, baked in ladder.items()
)

# %% [markdown]
# ## For one block of seats
#
# A UE does not look from everywhere. A *view cell* holds the phones of one block of seats; whoever sits there needs
# only what they see, so the same bytes show more of it (S39). Judged by the teacher, at one of the block's phones:

# %%
block = view_cell(cameras, cameras.positions.median(0).values, radius=6.0)
smallest = TIERS[0]
models = {
    "teacher": field,
    "for everybody": ladder[smallest.name],
    "for this block": cn.bake(field, cameras=block, max_bytes=smallest.max_bytes, importance=bench.importance(block)),
}
seat = {name: bench.seen_from(model, block[:1]) for name, model in models.items()}
to_teacher = {name: cn.psnr(picture, seat["teacher"]) for name, picture in seat.items() if name != "teacher"}
print(f"{len(block)} of {len(cameras)} photos; " + ", ".join(f"{name} {db:.1f} dB" for name, db in to_teacher.items()))
cn.figures.image_strip(seat, truth=seat["teacher"], columns=3)

# %% [markdown]
# [Notebook 6](06_fit_to_devices.ipynb) gives a UE a model of its block, and another one when it moves.
#
# Two kinds of models of one scene, of opposite strengths: a network of fixed, small cost a frame, and a table that
# keeps the teacher's detail in few bytes and asks a processor that can march. Which of them serves a device is a matter
# of its chip, its memory and its link; [notebook 6](06_fit_to_devices.ipynb) measures it.

# %% tags=["check"]
naive = cn.quality(bench.renders(untrained["ray_mlp S"].eval()), list(views.truths))
assert all(score[name].psnr > naive.psnr + 1 for name in distilled), "distillation has hardly changed the students"
assert all(kilobytes[tier.name] <= tier.max_bytes / 1e3 for tier in TIERS if tier.name in kilobytes)
assert score["baked, 4MB"].psnr > score["teacher"].psnr - 1, "baking lost more than 1 dB"
print(", ".join(f"{name} {each.psnr:.1f} dB" for name, each in score.items()))

# %% [markdown]
# **Your prediction.** Less than a decibel lies between the two students, and it is seen more than it is measured. And
# 200 kB of the teacher itself, without any training, show more than either student: pruning and rounding what is known
# costs less than learning it again.
#
# The students are kept in `students/` of this preset's folder of `runs/`.

# %% [markdown]
# ## What can go wrong
#
# - **The student is asked from where it never was.** A network that maps rays to colours has no geometry to fall back
#   on: outside of the pseudo views it invents. A baked field goes on being a scene, with holes where nobody looked.
# - **Seams between cells.** Each ray draws its own block of pixels. Smaller cells cost frames, larger ones seams.
# - **The student is blamed for its teacher.** It cannot know more. Compare *to teacher* to judge the student, *to
#   truth* to judge what viewers get.
# - **A new teacher, an old student.** Students are kept in `runs/`. After training another field, remove `students/`
#   and `pseudo_views/` (or `make clean`).
# - **A model for one block, used from another.** It is whole only for its own seats; the card of such a model says
#   where it holds.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** What does a frame of the plain student cost? Count the multiplications for one ray (every weight is
# used once) and for a frame of 256 × 256; a phone's neural chip does some $10^{12}$ a second. How many frames would it
# have time for?

# %% jupyter={"source_hidden": true} tags=["solution"]
student = distilled[plain].student
a_ray = sum(weights.numel() for weights in student.parameters() if weights.ndim == 4)
a_frame = a_ray * (256 // student.cell) ** 2
cells = f"{student.cell} x {student.cell}"
print(f"{a_ray / 1e3:.0f} k for {cells} pixels, {a_frame / 1e6:.0f} M a frame, {1e12 / a_frame:.0f} frames a second")
assert a_frame < 1e9

# %% [markdown]
# **Exercise 2.** What is each level of the grid worth? Bake the field with 1, 2, … levels and put bytes against dB.
# Where would you stop for a device with 1 MB to spare? Then look at what `max_bytes=1_000_000` chose instead.

# %% jupyter={"source_hidden": true} tags=["solution"]
rates = []
for levels in range(1, len(field.shape.resolutions) + 1):
    cut = cn.bake(field, levels=levels)
    size = len(coded_baked(cut)) / 1e6
    rates.append({"levels": levels, "MB coded": size, "dB": cn.psnr(bench.picture(cut), views.truths[0])})
assert all(one["MB coded"] < more["MB coded"] for one, more in itertools.pairwise(rates))
assert rates[-1]["dB"] > rates[0]["dB"]
cn.figures.table(
    [
        *rates,
        {"levels": "chosen", "MB coded": kilobytes["1MB"] / 1e3, "dB": cn.psnr(by_baked["1MB"][0], views.truths[0])},
    ]
)

# %% [markdown]
# **Exercise 3.** Is a student too small, or the time too short? Give the second one a third of the time, and compare
# it against the teacher with what the whole time gave.

# %% jupyter={"source_hidden": true} tags=["solution"]
hurried = bench.distilled(planes, seconds=bench.preset.distil_seconds / 3)
by_hurried = cn.quality(bench.renders(hurried.student), pictures["teacher"]).psnr
print(f"{planes}: {by_hurried:.1f} dB to the teacher in a third of the time, {imitation[planes]:.1f} in all of it")
assert by_hurried > cn.quality(bench.renders(untrained["ray_mlp S"].eval()), pictures["teacher"]).psnr

# %% [markdown]
# ## Further reading
#
# - H. Wang, J. Ren, Z. Huang, K. Olszewski, M. Chai, Y. Fu, S. Tulyakov: [R2L: Distilling Neural Radiance Field to
#   Neural Light Field for Efficient Novel View Synthesis](https://arxiv.org/abs/2203.17261). ECCV 2022.
# - J. Cao and others: [Real-Time Neural Light Field on Mobile Devices](https://arxiv.org/abs/2212.08057). CVPR 2023.
#   MobileR2L.
# - A. Gupta and others: [LightSpeed: Light and Fast Neural Light Fields on Mobile
#   Devices](https://arxiv.org/abs/2310.16832). NeurIPS 2023.
# - T. Zhou, R. Tucker, J. Flynn, G. Fyffe, N. Snavely: [Stereo Magnification: Learning View Synthesis using Multiplane
#   Images](https://arxiv.org/abs/1805.09817). SIGGRAPH 2018.
# - M. Levoy, P. Hanrahan: [Light field rendering](https://doi.org/10.1145/237170.237199). SIGGRAPH 1996. Two planes,
#   no network.
# - P. Hedman, P. P. Srinivasan, B. Mildenhall, J. T. Barron, P. Debevec: [Baking Neural Radiance Fields for Real-Time
#   View Synthesis](https://arxiv.org/abs/2103.14645). ICCV 2021.
# - G. Hinton, O. Vinyals, J. Dean: [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531).
#   2015.
#
# **On to** [6 · Models that fit devices](06_fit_to_devices.ipynb).
