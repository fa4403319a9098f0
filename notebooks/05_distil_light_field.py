# %% [markdown]
# # 5 · Distilling a light field: one pass instead of a march
#
# **Question.** A radiance field is asked at a hundred points along every ray. Can a small network be trained to give
# the pixel from the ray itself, in one pass, as the neural chips of phones like it?
#
# **Predict.** The student sees the scene only through the field that teaches it. After a few minutes on two CPU
# cores, how many dB will it lie below its teacher? And what will it get right first: the words on the screen, or the
# colours of the stage?
#
# **Time.** 4 minutes on two CPU cores; a GPU would give many more steps in the same time.
#
# **Needs.** The field of [notebook 3](03_train_radiance_field.ipynb); trained if missing.

# %%
import itertools

import crowdnerf_lab as cn
from crowdnerf_lab.light_fields.planes import planes_across

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
# Cao et al. 2023) a ray enters a network as the points where it meets eight planes across the scene, each coordinate
# with the sines and cosines of its multiples. The network works on a small image of rays and gives 8 × 8 pixels for
# each, so that one pass of 1 × 1 convolutions paints a whole frame (S9).

# %%
planes = planes_across(scene.cameras, scene.bounds)
untrained = {size: cn.RayMLP(planes, size) for size in ("XS", "S")}
cn.figures.table(
    {"student": size, "numbers": sum(weights.numel() for weights in student.parameters())}
    for size, student in [*untrained.items(), ("(the teacher)", field)]
)

# %% [markdown]
# The student is small because it must be downloaded, and fixed in shape because a phone's neural chip runs
# convolutions and little else (S10).
#
# ## Distillation
#
# The crowd's photos are too few to learn a function of rays from. The teacher makes more: *pseudo views* from between
# and around the phones, in neutral colours, without arms and without noise. The student minimises $\lVert
# L_\theta(\text{ray}) - C_{\text{teacher}}(\text{ray}) \rVert^2$ over them.

# %%
distillation = cn.distil(
    field,
    scene,
    size="S",
    seconds=bench.preset.distil_seconds,
    views=bench.preset.distil_views,
    width=bench.preset.view_width,
    height=bench.preset.view_height,
    workspace=bench.root / "pseudo_views",
)
student = distillation.student
bench.keep_student(student)
cn.figures.training_curve({"student S": distillation.history}, title="Student against its teacher, on held-out views")

# %% [markdown]
# Rendering the pseudo views comes before the curve's first second. The curve measures against the *teacher*: how well
# the student imitates, not how well either knows the stage.
#
# ## Truth, teacher, student

# %%
by_teacher, by_student = bench.renders(field), bench.renders(student)
cn.figures.image_strip(
    {"truth": views.truths[0], "teacher: field": by_teacher[0], "student: light field": by_student[0]},
    truth=views.truths[0],
    columns=3,
)

# %% [markdown]
# Look at edges first. A network is a smooth function of the ray; at an edge it must change quickly, in exactly the
# right place for every camera at once. Colours of large surfaces come early, edges late, small print last.

# %%
score = {"teacher": cn.quality(by_teacher, list(views.truths)), "student S": cn.quality(by_student, list(views.truths))}
imitation = cn.quality(by_student, by_teacher)
cn.figures.table(
    {"compared": name, "PSNR, dB": each.psnr, "SSIM": each.ssim, "ꟻLIP": each.flip}
    for name, each in {
        "teacher to truth": score["teacher"],
        "student S to truth": score["student S"],
        "student S to teacher": imitation,
    }.items()
)

# %%
print(f"Student S lies {score['teacher'].psnr - score['student S'].psnr:.1f} dB below its teacher against the truth.")

# %% [markdown]
# MobileR2L's authors let their student learn for days on four GPUs. What minutes on two cores give is shown here as
# it is.
#
# ## The other way to a device: bake the field itself
#
# Nothing forces a device to run a network. *Baked*, that is pruned and quantized to 8 bits, the field fits into a few
# megabytes, and every pixel is still marched. It costs no training, only bytes, and arithmetic on the device (S25).

# %%
baked = bench.baked()
by_baked = bench.renders(baked)
score["baked field"] = cn.quality(by_baked, list(views.truths))
cn.figures.image_strip(
    {"truth": views.truths[0], "student S: one pass": by_student[0], "baked field: marched": by_baked[0]},
    truth=views.truths[0],
    notes={"baked field: marched": f"{baked.bytes / 1e6:.1f} MB"},
    columns=3,
)

# %% [markdown]
# Two models of one scene with opposite strengths: a network of fixed, small cost a frame, and a table that keeps the
# teacher's detail. Which of them serves a device is a matter of its chip, its memory and its link; [notebook
# 6](06_fit_to_devices.ipynb) measures it.

# %% tags=["check"]
naive = cn.quality(bench.renders(untrained["S"].eval()), list(views.truths))
assert score["student S"].psnr > naive.psnr + 1, "distillation has hardly changed the student"
assert score["baked field"].psnr > score["teacher"].psnr - 1, "baking lost more than 1 dB"
print(", ".join(f"{name} {each.psnr:.1f} dB" for name, each in score.items()))

# %% [markdown]
# The student is kept as `student.safetensors` in this preset's folder of `runs/`.
#
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** What does a frame of student S cost? Count the multiplications for one ray (every weight is used
# once) and for a frame of 256 × 256; a phone's neural chip does some $10^{12}$ a second. How many frames would it
# have time for?

# %% jupyter={"source_hidden": true} tags=["solution"]
a_ray = sum(weights.numel() for weights in student.parameters() if weights.ndim == 4)
a_frame = a_ray * (256 // 8) ** 2
print(f"{a_ray / 1e3:.0f} k for 8 x 8 pixels, {a_frame / 1e6:.0f} M a frame, {1e12 / a_frame:.0f} frames a second")
assert a_frame < 1e9

# %% [markdown]
# **Exercise 2.** What is each level of the grid worth? Bake the field with 1, 2, … levels and put bytes against dB.
# Where would you stop for a device with 4 MB to spare?

# %% jupyter={"source_hidden": true} tags=["solution"]
rates = []
for levels in range(1, len(field.shape.resolutions) + 1):
    cut = cn.bake(field, levels=levels)
    rates.append({"levels": levels, "MB": cut.bytes / 1e6, "dB": cn.psnr(bench.picture(cut), views.truths[0])})
assert all(one["MB"] < more["MB"] for one, more in itertools.pairwise(rates))
assert rates[-1]["dB"] > rates[0]["dB"]
cn.figures.table(rates)

# %% [markdown]
# **Exercise 3.** Is the student too small, or the time too short? Distil an XS, with a fifth of the numbers, for a
# fifth of the time, and compare it with S against the teacher.

# %% jupyter={"source_hidden": true} tags=["solution"]
smaller = cn.distil(
    field,
    scene,
    size="XS",
    seconds=bench.preset.distil_seconds / 5,
    views=bench.preset.distil_views,
    width=bench.preset.view_width,
    height=bench.preset.view_height,
    workspace=bench.root / "pseudo_views",
)
by_smaller = cn.quality(bench.renders(smaller.student), by_teacher)
print(f"XS {by_smaller.psnr:.1f} dB to the teacher, S {imitation.psnr:.1f} dB")
assert by_smaller.psnr > cn.quality(bench.renders(untrained["XS"].eval()), by_teacher).psnr

# %% [markdown]
# **On to** [6 · Models that fit devices](06_fit_to_devices.ipynb).
