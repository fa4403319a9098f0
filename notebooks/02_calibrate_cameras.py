# %% [markdown]
# # 2 · Where the phones really were
#
# **Question.** How well must a camera's pose be known before a field can be trained on its photo, and where can such
# poses come from?
#
# **Predict.** GPS errs by metres and a compass by degrees. With a pose wrong by 3 m and 6°, by how many pixels does a
# point on the stage, 15 m away, miss its place in a photo 320 pixels wide?
#
# **Time.** 2 minutes on two CPU cores, a quarter of it structure from motion.
#
# **Needs.** The screened photos of [notebook 1](01_crowd_ingest.ipynb), or of your own `folder`; made if missing.
# Structure from motion is pycolmap's, the extra `colmap`.

# %%
import math
from dataclasses import replace

import crowdnerf_lab as cn
from crowdnerf_lab.cameras import project, rotation_angle
from crowdnerf_lab.captures.exporting import write_colmap, write_transforms
from crowdnerf_lab.captures.poses.georegistration import similarity_between
from crowdnerf_lab.captures.spoiling import moved_elsewhere

# %% tags=["parameters"]
preset = "standard"
folder = ""

# %%
bench = cn.open_workbench(preset, folder=folder)
captures = bench.captures_to_calibrate()

# %% [markdown]
# ## What a wrong pose does to a pixel
#
# A point $X$ falls on the pixel $f\,x/z + c$ with $(x, y, z) = R^\top (X - t)$. Turning the camera by an angle
# $\Delta$ moves it by about $f\,\Delta$; shifting it sideways by $s$ moves it by $f\,s/z$. Your prediction, worked
# out for the first photo:

# %%
focal, distance, shift, turn = captures.photos[0].focal_px or 300.0, 15.0, 3.0, math.radians(6)
print(
    f"{focal * turn:.0f} px from the compass, {focal * shift / distance:.0f} px from GPS, focal length {focal:.0f} px"
)

# %% [markdown]
# On the screen above the stage, letters are a few pixels high. On such poses no field can be sharp, however long it
# trains.
#
# ## Poses from the pictures
#
# *Structure from motion* finds the same points in many photos, and moves cameras and points until these project to
# where they were seen, $\min \sum_{ij} \rho\big(\lVert \pi(R_i, t_i, X_j) - u_{ij} \rVert\big)$ (Schönberger and Frahm
# 2016; the global form of Pan et al. 2024). To find them, photos are compared in pairs, and every two photos would be
# $N(N-1)/2$ pairs. What phones report, and how alike two pictures are as a whole, say which pairs can show the same
# thing. The last photos of the event are kept back for later.

# %%
late = max(1, len(captures.photos) // 8)
early = captures.keeping([photo.file for photo in captures.photos[:-late]])
motion, by_motion = cn.calibrate(early, poses="colmap", align=bench.align, workspace=bench.root / "colmap")
every = len(early.photos) * (len(early.photos) - 1) // 2
print(f"{by_motion.summary()}; {by_motion.pairs} pairs compared of {every}")

# %% [markdown]
# A photo that gets no pose is not lost by accident: its row of the report says why.

# %%
for row in by_motion.rows:
    if not row.registered:
        print(f"{row.photo}: {row.problem}")

# %% [markdown]
# ## Latecomers
#
# An event goes on, and photos keep coming. They are compared with what is known already and posed into it; the poses
# that others rely on stay where they were (row S64).

# %%
before, spent = len(by_motion.registered), by_motion.seconds
motion, by_motion = cn.add_captures(motion, captures, report=by_motion, workspace=bench.root / "colmap")
more = len(by_motion.registered) - before
print(f"{more} of {late} more photos posed in {by_motion.seconds:.0f} s, after {spent:.0f} s for the first {before}")

# %% [markdown]
# ## The other sources
#
# The phones' own **metadata** (row S62), and, because this concert is rendered, the **truth**. Structure from motion
# knows neither scale nor north; for this comparison its world was turned and scaled to the truth, which a real event
# has not.

# %%
posed = {"structure from motion": (motion, by_motion), **bench.recorded_poses()}
cn.figures.capture_map(
    {name: scene.cameras[scene.train] for name, (scene, _) in posed.items()},
    points=by_motion.points,
    point_colours=by_motion.colours.float() / 255,
)

# %% [markdown]
# The coloured points are what structure from motion found on the way: corners that several photos share, mostly on
# the stage. Where two frusta coincide, the pose was recovered; a frustum that floats alone is a phone whose GPS was
# off.

# %%
cn.figures.table(
    {
        "poses": name,
        "photos posed": len(report.registered),
        "metres from the truth, median": report.median_position_error,
        "degrees, median": math.degrees(report.median_rotation_error),
        "seconds": report.seconds,
    }
    for name, (_, report) in posed.items()
)

# %% [markdown]
# ## North, up and metres without the truth
#
# At a real event the frame is fitted to what all phones report together: each is metres off, but not all in the same
# direction. Attitudes settle what is up, positions how large everything is; a phone that errs as a whole counts once,
# however many photos it sent. The expensive stages are kept, so this is quick.

# %%
_, honest = cn.calibrate(early, poses="colmap", align="metadata", workspace=bench.root / "colmap")
print(honest.summary())
if bench.located:
    print(f"expected error of the scale {honest.scale_error:.1%}, of heading {math.degrees(honest.turn_error):.1f}°")

# %% [markdown]
# ## A phone that lies about where it is
#
# Somebody at home could send a photo taken off a screen with a false position. The picture fits the scene, so
# screening by eye finds nothing; but its pose in the reconstruction and its report contradict each other. Here one
# phone's reports are moved by 40 m (row S63):

# %%
liar, suspects = None, ()
if bench.located:
    liar, lying = moved_elsewhere(captures, metres=40.0)
    suspects = cn.screen_poses(lying, motion)[1].rejected
accused = {row.ue for row in suspects}
print(f"{liar or 'nobody'} lies; accused: {', '.join(sorted(accused)) or 'nobody'}")
for row in suspects[:2]:
    print(row.photo, row.reason)

# %% [markdown]
# ## What it means for a field
#
# The same training, the same seconds, each source of poses; judged on the same held-out views.

# %%
views = bench.views()
fields = {
    name: cn.fit(bench.sized(scene), seconds=bench.preset.ablation_seconds).model for name, (scene, _) in posed.items()
}
renders = {name: bench.renders(field) for name, field in fields.items()}
cn.figures.image_strip(
    {"truth": views.truths[0], **{f"poses: {name}": shown[0] for name, shown in renders.items()}},
    truth=views.truths[0],
)

# %% [markdown]
# Look at the screen's words, then at the numbers over all views:

# %%
scores = {name: cn.quality(shown, list(views.truths)) for name, shown in renders.items()}
cn.figures.table(
    {"trained on poses from": name, "PSNR, dB": score.psnr, "SSIM": score.ssim, "ꟻLIP": score.flip}
    for name, score in scores.items()
)

# %% [markdown]
# Read it with care: a field learns in the frame of its own poses, but is judged in the true one, so what structure
# from motion loses against the truth is partly detail and partly a remaining offset of the whole frame.
#
# ## What nobody has seen
#
# With poses and a first field it is known which photos show which part of the scene, and where one more photo would
# help most. The network can ask for it (rows S11, S64).

# %%
field = fields["structure from motion"]
covered = cn.coverage(field, motion, cells=bench.preset.coverage_cells)
asked = cn.requests(field, motion, covered, count=3)
cn.figures.coverage_map(covered, cameras=motion.cameras[motion.train], asked=asked, points=by_motion.points)

# %% [markdown]
# Every dot is a piece of the scene, brighter the more photos show it; the numbered frusta are the photos to ask for,
# the most useful first.

# %%
for rank, request in enumerate(asked, start=1):
    print(f"{rank}. {request.why}")

# %% tags=["check"]
assert len(by_motion.registered) >= 0.5 * len(captures.photos), by_motion.summary()
write_transforms(motion, bench.root / "calibrated")
write_colmap(motion, bench.root / "calibrated_colmap", points=by_motion.points, colours=by_motion.colours)
if bench.folder is None:
    by_metadata = posed["metadata"][1]
    assert by_motion.median_position_error < by_metadata.median_position_error, "the photos know less than GPS"
    assert by_motion.median_rotation_error < by_metadata.median_rotation_error, "the photos know less than the compass"
    assert accused == {liar}, "the liar was not found, or somebody honest was accused"
print(f"{by_motion.summary()}; {len(suspects)} photos of the liar found; {len(asked)} photos asked for")

# %% [markdown]
# **Your prediction.** 67 pixels from GPS and 35 from the compass, of 320: a point on the stage may show up anywhere in
# a third of the photo. That is why the field that was trained on metadata shows fog.
#
# The calibrated scene is kept in this preset's folder, as `calibrated/transforms.json` for nerfstudio, instant-ngp and
# this lab, and as a COLMAP model in `calibrated_colmap/`. The notebooks that follow train on the *true* poses, so that
# what they measure is the field and not the calibration; exercise 3 trains on yours.

# %% [markdown]
# ## What can go wrong
#
# - **Few photos get a pose.** They share too little with the others: too dark, a crop of the screen, a zoom. Each row
#   says why; the field is trained without them.
# - **The stage appears twice, or mirrored.** Its left and right tower look alike, and photos were matched across. What
#   phones report keeps such pairs from being compared; a folder of bare pictures has nothing that does.
# - **All is right but far away.** Structure from motion has no metres of its own. What all phones err by together (a
#   GPS reflected by the same stand) shifts, turns or scales the whole world, and no picture shows it. The expected
#   errors above are of what phones err by *apart*.
# - **`pip install "crowdnerf-lab[colmap]"`.** pycolmap is missing; the poses that phones report need it not.
# - **Digits differ from those here.** Feature matching uses threads and random samples. Compare medians, not digits.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** How well must a pose be known for no point of the stage to miss its place by more than a pixel? Work
# out the turn and the shift from the two rules at the beginning, and try both on a camera. Which of the sources of
# poses are that good?

# %% jupyter={"source_hidden": true} tags=["solution"]
camera = motion.cameras[motion.train[:1]]
f, point = float(camera.focal[0, 0]), camera.positions + distance * camera.forward
for moved, column, along, by in (("turned", 0, 2, 1 / f), ("shifted", 3, 0, distance / f)):
    pose = camera.camera_to_world.clone()
    pose[..., column] += by * pose[..., along]  # columns: right, down, forward, position
    missed = (project(replace(camera, camera_to_world=pose), point)[0] - project(camera, point)[0]).norm()
    print(f"{moved} by {math.degrees(by):.2f}° is" if along else f"{moved} by {by:.3f} m is", f"{missed:.2f} px off")
    assert 0.9 < missed < 1.1

# %% [markdown]
# **Exercise 2.** A similarity turns, scales and shifts. Take the calibrated poses, turn them by 90° about the up axis
# and shrink them to half; does `similarity_between` find the way back?

# %% jupyter={"source_hidden": true} tags=["solution"]
poses = motion.cameras.camera_to_world
turn = poses.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
moved = turn @ poses
moved[..., 3] *= 0.5
back = similarity_between(moved, poses)
assert abs(back.scale - 2) < 1e-4
assert rotation_angle(back.rotation.float(), turn.T) < 1e-3

# %% [markdown]
# **Exercise 3.** Read the kept scene back and train on it for a moment. Is it what was written?

# %% jupyter={"source_hidden": true} tags=["solution"]
kept = cn.read_scene(bench.root / "calibrated")
assert len(kept.train) == len(motion.train)
again = cn.fit(bench.sized(kept).with_split(kept.train.tolist(), []), steps=20).model
assert cn.psnr(bench.picture(again), views.truths[0]) > 5

# %% [markdown]
# ## Further reading
#
# - J. L. Schönberger, J.-M. Frahm: [Structure-from-Motion Revisited](https://doi.org/10.1109/CVPR.2016.445). CVPR
#   2016. COLMAP.
# - L. Pan, D. Baráth, M. Pollefeys, J. L. Schönberger: [Global Structure-from-Motion
#   Revisited](https://arxiv.org/abs/2407.20219). ECCV 2024. GLOMAP.
# - N. Snavely, S. M. Seitz, R. Szeliski: [Photo Tourism: Exploring Photo Collections in
#   3D](https://doi.org/10.1145/1141911.1141964). SIGGRAPH 2006. Where crowds and structure from motion met.
# - S. Umeyama: [Least-squares estimation of transformation parameters between two point
#   patterns](https://doi.org/10.1109/34.88573). IEEE TPAMI 13(4), 1991. Exercise 2, in four pages.
#
# **On to** [3 · Training a radiance field](03_train_radiance_field.ipynb).
