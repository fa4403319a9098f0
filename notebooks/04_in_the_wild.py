# %% [markdown]
# # 4 · In the wild: what spoils a crowd's photos, and what the crowd gives back
#
# **Question.** Phones differ, arms are raised, it is dark, hands shake, and nobody knows exactly where they stand. What
# can a field that is trained on all photos at once tell about each of them, and how much better can it make them?
#
# **Predict.** A photo is occluded to a third by somebody's head. Its pose is known, and so is the crowd's field. By how
# many dB does the photo come nearer to what it would have been without that head?
#
# **Time.** 4 minutes on two CPU cores. The kernels are written for CPUs: a GPU changes nothing here.
#
# **Needs.** The screened and calibrated scene of notebooks [1](01_crowd_ingest.ipynb) and
# [2](02_calibrate_cameras.ipynb); made if missing.

# %%
import itertools
import math
import statistics
from dataclasses import replace

import torch

import crowdnerf_lab as cn
from crowdnerf_lab.captures.spoiling import screened, with_bad_captures
from crowdnerf_lab.captures.study import clean_twin, is_spoiled, people_in_front, truth_of
from crowdnerf_lab.enhanced_views import enhanced_views, gain_of
from crowdnerf_lab.fields.appearance import exposed
from crowdnerf_lab.pose_refinement import perturbed, pose_errors
from crowdnerf_lab.robustness import average_precision

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)
scene, scale = bench.scene(), bench.preset.photo_downscale
fit = cn.fit(scene, seconds=bench.preset.fit_seconds)

# %% [markdown]
# ## Every phone sees its own colours
#
# Between the field's neutral colour and a photo lie a gain $g$ for each colour (exposure and white balance, one set a
# phone and an exposure a shot), a vignette, and the tone curve by which phones press highlights together, Reinhard's
# $L = x/(1 + h x)$. A gain of the light $x$ then makes of a shown colour $L' = gL/(1 + (g-1)hL)$: gains multiply, and
# the inverse gain undoes them. All of it is learned with the field, from photos that overlap; $h$ once for the crowd.

# %%
look = fit.appearance
exposure = (look.log_shot + look.log_gain[look.capture_of_photo].mean(-1))[scene.train]
pictures = {}
for word, place in {"dimmest": exposure.argmin(), "brightest": exposure.argmax()}.items():
    row = int(scene.train[place])
    neutral = cn.render_view(fit.model, scene.cameras, index=row).colour
    pictures |= {f"{word} photo": scene.image(row), f"{word}: neutral field": neutral}
    pictures[f"{word}: field as this phone shows it"] = look.as_taken(neutral, row)
print(f"the tone curve's h: {look.shoulder.item():.2f}")
cn.figures.image_strip(pictures, columns=3)

# %% [markdown]
# The middle column has one light for all; the right one has each phone's own, and resembles the photo. What is left of
# the difference is noise, detail that the field has not learned, and people.
#
# ## Somebody in front
#
# One ray cannot tell a raised arm from a singer the field does not know yet: both leave a large residual. Their
# *patches* can. What is in front covers a patch with one sign of the residual; unlearned detail swings around zero
# (patches as in RobustNeRF, Sabour et al. 2023, and NeRF On-the-go, Ren et al. 2024). While training, a running mean of
# each patch's log residual takes the weight from rays behind people; afterwards the whole photo is compared at once.

# %%
crowd = cn.concert()
every = bench.sized(cn.calibrate(crowd, poses="truth")[0])
photo_of = {photo.file: photo for photo in crowd.photos}
shots = [row for row in every.train.tolist() if truth_of(photo_of[every.image_names[row]]).spoiled_by != "wrong"]
shots = [row for row in shots if int(every.capture_of_image[row]) % 4 == 1]
enhanced = dict(zip(shots, enhanced_views(fit.model, every, shots, appearance=fit.appearance), strict=True))
masks = {row: people_in_front(crowd, photo_of[every.image_names[row]], downscale=scale) for row in shots}
precision = average_precision(
    torch.cat([enhanced[row].doubt.flatten() for row in shots]), torch.cat([masks[row].flatten() for row in shots])
)
share = float(torch.cat([masks[row].flatten() for row in shots]).float().mean())
print(f"average precision of the doubt: {precision:.2f}; by chance {share:.2f}")

# %%
behind = max(shots, key=lambda row: float(masks[row].float().mean()))
cn.figures.image_strip(
    {
        "photo": every.image(behind),
        "doubt": cn.figures.false_colour(enhanced[behind].doubt, low=0.0, high=1.2),
        "people in front": cn.figures.false_colour(masks[behind].float(), low=0.0, high=1.0),
    },
    columns=3,
)

# %% [markdown]
# The doubt was made without the mask. It misses what is dark before the dark, and it calls spectators right beside the
# phone people in front, which they are; the simulation counts those as scenery.
#
# ## Everybody's photo, better
#
# With the pose, the field is rendered where the photo was taken. Where the photo is doubted or cut off at white, the
# field stands in. Elsewhere the field is the prior of a Wiener filter: of what the photo says beyond the field, each
# band of detail keeps the share $1 - \text{noise}/\text{energy}$. So noise goes and detail stays; if the photo is
# blurred, the field's own detail stays (rows S13, S14, S18, S24).

# %%
clean = {row: clean_twin(crowd, photo_of[every.image_names[row]], downscale=scale) for row in shots}
gains = {row: gain_of(enhanced[row].image, every.image(row), clean=clean[row]) for row in shots}
spoiled = [row for row in shots if is_spoiled(photo_of[every.image_names[row]])]
best = sorted(spoiled, key=lambda row: -gains[row])[:3]
gallery = {}
for row in best:
    name = every.image_names[row].removeprefix("train/").removesuffix(".jpg")
    gallery |= {f"{name}, as taken": every.image(row), f"{name}, enhanced ({gains[row]:+.1f} dB)": enhanced[row].image}
    gallery[f"{name}, unspoiled"] = clean[row]
cn.figures.image_strip(gallery, columns=3)

# %% [markdown]
# The unspoiled pictures are known because the concert is simulated; nothing was fitted to them. Over all photos of
# these phones, colours fitted before comparing:

# %%
good = [row for row in shots if row not in spoiled]
cn.figures.table(
    {
        "photos": name,
        "number": len(rows),
        "median gain, dB": statistics.median(gains[row] for row in rows),
        "worst, dB": min(gains[row] for row in rows),
    }
    for name, rows in {"occluded, blurred, dark or over-exposed": spoiled, "the others": good}.items()
)

# %% [markdown]
# The photos that looked the wrong way are not among them: where the field has nothing to show, a pose does not help.
#
# ## Dark photos: what many views know
#
# A photo taken with too little light is noise. The crowd's other photos are not, and together they average out even
# their own noise: here is the darkest shot beside the field alone and the fusion of both.

# %%
dark = min(shots, key=lambda row: float(every.image(row).mean()))
cn.figures.image_strip(
    {"as taken": every.image(dark), "field alone": enhanced[dark].field, "enhanced": enhanced[dark].image,
     "unspoiled": clean[dark]},
    truth=clean[dark],
)  # fmt: skip

# %% [markdown]
# Compare the number under the photo with those under the two others: a colour fit is not part of these.
#
# ## Poses that are a little off
#
# Calibration leaves errors. Here all cameras start 1° and 0.3 m off, in random directions, and may move while the field
# trains: a photo's pixels say where their camera must have been for the crowd to agree.

# %%
moved = perturbed(scene.cameras, scene.train, turn=math.radians(1), shift=0.3, seed=0)
off = replace(scene, cameras=moved)
true_poses = scene.cameras.camera_to_world[scene.train]
rows = []
for name, refine in (("kept", False), ("refined", True)):
    trained = cn.fit(off, seconds=2 * bench.preset.ablation_seconds, refine_poses=refine)
    errors = pose_errors(trained.cameras.camera_to_world[scene.train], true_poses, aligned=True)
    judged = cn.quality(bench.renders(trained.model), list(bench.views().truths))
    degrees, metres = math.degrees(float(errors.rotation.median())), float(errors.position.median())
    rows.append({"poses": name, "median, degrees": degrees, "median, m": metres, "PSNR, dB": judged.psnr_affine})
cn.figures.table(rows)

# %% [markdown]
# Turning, moving and scaling the whole world together changes no picture, so errors are counted after the similarity
# that fits all cameras best. A few seconds hardly start the search: `benchmarks.crowd` gives it longer.
#
# ## Thirty per cent bad captures
#
# What do bad captures cost in the end? A clean crowd, and the same crowd with 30 % of its UEs spoiled: blurred, dark,
# behind somebody, with a wrong position, or turned by 5°. Both are screened and trained in the same way.

# %%
pure = bench.sized(cn.calibrate(crowd, poses="truth", photos="clean")[0])
bad = with_bad_captures(pure, fraction=0.3)
crowds = {"clean": pure, "30 % bad": screened(bad.scene)}
seconds, truths = bench.preset.ablation_seconds, list(bench.views().truths)
models = {name: cn.fit(some, seconds=seconds).model for name, some in crowds.items()}
reached = {name: cn.quality(bench.renders(model), truths) for name, model in models.items()}
cost = reached["clean"].psnr_affine - reached["30 % bad"].psnr_affine
cn.figures.table(
    {"trained on": name, "photos": len(crowds[name].train), "PSNR after a colour fit, dB": score.psnr_affine}
    for name, score in reached.items()
)

# %% [markdown]
# Bad captures that agree with nobody lose their weight patch by patch; what they cost is what the good ones could have
# shown in the same time.

# %% tags=["check"]
assert precision > 1.5 * share, "the doubt knows hardly more than chance"
assert all(view.image.isfinite().all() for view in enhanced.values())
print(
    f"doubt {precision:.2f} AP, enhanced views {statistics.median(gains[row] for row in spoiled):+.1f} dB "
    f"(worst {min(gains.values()):+.1f}), 30 % bad captures cost {cost:.1f} dB"
)

# %% [markdown]
# **Your prediction.** The captions of the gallery and the first row of the table after it have the answer. It is large
# because a head is the worst of errors: all of its pixels are wrong, and the crowd has seen what lies behind.

# %% [markdown]
# ## What can go wrong
#
# - **An enhanced photo is no document.** Behind the head stands what *others* saw, at other moments: a singer who has
#   moved since is in the wrong place, convincingly. Keep the original, and say what was filled.
# - **A good photo gets worse.** See the last column of the table: how noisy a photo is must be guessed, and where the
#   guess is too high, the field's blur replaces detail. At a real event nobody knows the gain, so keep both.
# - **The dark before the dark.** A black shirt before a black hall leaves no residual, so the doubt cannot see it.
# - **Everybody errs alike.** Robust losses believe the majority. Where most photos of a place are spoiled in the same
#   way, that is the scene.
# - **Poses drift together.** When all cameras may move, the whole world may turn with them and no picture changes;
#   errors are counted after the best similarity for this reason.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Gains of one tone curve form a group: show with `exposed` that a look can be put on a photo and taken
# off again, and that two looks in a row are one. Where does it fail?

# %% jupyter={"source_hidden": true} tags=["solution"]
photo, warm, dim = clean[dark], torch.tensor([0.2, 0.0, -0.2]), torch.full((3,), -0.5)
twice = exposed(exposed(photo, warm, 0.8), dim, 0.8)
torch.testing.assert_close(twice, exposed(photo, warm + dim, 0.8), atol=1e-4, rtol=1e-3)
back = exposed(twice, -(warm + dim), 0.8)
assert cn.psnr(back, photo) > 60
print("it fails where a phone cuts off at white: all brighter lights look alike")

# %% [markdown]
# **Exercise 2.** How good would the doubt be if its threshold had to be chosen once for all photos? For thresholds from
# 0.3 to 1.2, which share of the doubted pixels is occluded, and which share of the occluded ones is doubted?

# %% jupyter={"source_hidden": true} tags=["solution"]
doubts = torch.cat([enhanced[row].doubt.flatten() for row in shots])
occluded = torch.cat([masks[row].flatten() for row in shots])
curve = []
for threshold in (0.3, 0.5, 0.7, 0.9, 1.2):
    called = doubts > threshold
    hits = float((called & occluded).sum())
    curve.append({"threshold": threshold, "precision": hits / max(float(called.sum()), 1),
                  "recall": hits / float(occluded.sum())})  # fmt: skip
assert all(one["recall"] >= more["recall"] for one, more in itertools.pairwise(curve))
cn.figures.table(curve)

# %% [markdown]
# **Exercise 3.** What did the photo contribute, and what the field? Count over the spoiled photos the pixels whose
# trust is below one half, and compare with the share that the masks cover.

# %% jupyter={"source_hidden": true} tags=["solution"]
replaced = statistics.mean(float((enhanced[row].trust < 0.5).float().mean()) for row in spoiled)
covered = statistics.mean(float(masks[row].float().mean()) for row in spoiled)
print(f"{replaced:.0%} of the pixels come from the field, {covered:.0%} lie behind people")
assert 0 <= replaced <= 1

# %% [markdown]
# ## Further reading
#
# - R. Martin-Brualla, N. Radwan, M. S. M. Sajjadi, J. T. Barron, A. Dosovitskiy, D. Duckworth: [NeRF in the
#   Wild](https://arxiv.org/abs/2008.02268). CVPR 2021. An appearance for each photo.
# - S. Sabour, S. Vora, D. Duckworth, I. Krasin, D. J. Fleet, A. Tagliasacchi: [RobustNeRF: Ignoring Distractors with
#   Robust Losses](https://arxiv.org/abs/2302.00833). CVPR 2023.
# - W. Ren, Z. Zhu, B. Sun, J. Chen, M. Pollefeys, S. Peng: [NeRF On-the-go: Exploiting Uncertainty for Distractor-free
#   NeRFs in the Wild](https://arxiv.org/abs/2405.18715). CVPR 2024.
# - B. Mildenhall, P. Hedman, R. Martin-Brualla, P. P. Srinivasan, J. T. Barron: [NeRF in the
#   Dark](https://arxiv.org/abs/2111.13679). CVPR 2022. Many noisy photos make a clean field.
# - C.-H. Lin, W.-C. Ma, A. Torralba, S. Lucey: [BARF: Bundle-Adjusting Neural Radiance
#   Fields](https://arxiv.org/abs/2104.06405). ICCV 2021. Poses and field at once.
# - E. Reinhard, M. Stark, P. Shirley, J. Ferwerda: [Photographic tone reproduction for digital
#   images](https://doi.org/10.1145/566654.566575). SIGGRAPH 2002.
#
# **On to** [5 · Distilling a light field](05_distil_light_field.ipynb).
