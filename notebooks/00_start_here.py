# %% [markdown]
# # Start here: the whole chain on one page
#
# At a concert, 48 phones take 144 photos. Each phone knows roughly where it stood; none saw the stage from where
# *you* would like to see it. The network collects the photos, learns the scene from them, and hands it out: as a
# model that a capable phone runs by itself (*device inference*), or as pictures for a phone that cannot (*network
# inference*). This is the use case of 3GPP TR 26.927, clause 4.2.4, end to end.
#
# Shift+Enter runs a cell and goes to the next. What the words mean, and which notebook comes when, is on [one
# page](README.md).
#
# **Question.** Can less than a minute of training on spoiled phone photos show a view that no phone took, and can a
# device then show it without the network?
#
# **Predict.** A picture of one flat colour, the photos' mean, reaches about 13 dB against the truth; a good JPEG 35
# dB. What will the new view reach? And how much is lost on the way into a device?
#
# **Time.** 1 minute on two CPU cores, ten with reading and exercises. The kernels are written for CPUs: a GPU changes
# nothing here.
#
# **Needs.** Nothing; the concert is in the box.

# %%
import crowdnerf_lab as cn
from crowdnerf_lab.devices.measure import as_colour

# %% tags=["parameters"]
preset = "standard"

# %%
bench = cn.open_workbench(preset)

# %% [markdown]
# ## 1 · The crowd's photos come in
#
# A UE (user equipment: a phone) sends photos with their location and pose, as it knows them (rows S11, S22, S62). The
# network leaves out what cannot help: blurred, over-exposed, dark, or pointed away from the stage (S64).

# %%
crowd = cn.concert()
screened, report = cn.screen(crowd)
cn.figures.crowd_map(crowd, report)

# %% [markdown]
# Every pyramid is one photo: its tip where the phone stood, its base towards what it saw. Colours tell what was left
# out and why; the numbers are in the legend. [Notebook 1](01_crowd_ingest.ipynb) looks closer.
#
# ## 2 · The network learns the scene
#
# A *radiance field* gives every point in space a density $\sigma$ and, in every direction, a colour $c$. A pixel is
# what its ray gathers on its way from the camera, $C = \sum_i T_i\,(1 - e^{-\sigma_i \delta_i})\,c_i$ with $T_i =
# e^{-\sum_{j<i} \sigma_j \delta_j}$, the light that gets through (Mildenhall et al. 2020). Training makes these
# pixels equal to the photos', while each phone's exposure and white balance are learned apart from the scene (S23,
# S65).

# %%
scene = bench.scene()
fit = cn.fit(scene, seconds=bench.preset.quick_fit_seconds)
cn.figures.training_curve({"field": fit.history}, title="Learning, measured on views that no phone took")

# %% [markdown]
# The curve is measured on *held-out* views: cameras between the phones, with the true picture known and never trained
# on. Most is learned in the first seconds; [notebook 3](03_train_radiance_field.ipynb) spends longer and takes the
# loss apart.
#
# ## 3 · A view that no phone took
#
# Ask the field for one of those views (S24). The third panel shows where it is wrong.

# %%
views = bench.views()
network_view = bench.picture(fit.model)
cn.figures.triptych(views.truths[0], network_view, name="field", title="Between the phones")

# %% [markdown]
# Errors sit on edges and fine print first: a grid of finite resolution, seen by few phones for a short time, blurs
# those.
#
# ## 4 · A model for the device
#
# To run on a device, the field is *baked*: empty space is cut, the rest quantized to 8 bits, in seconds and without
# training. The device then needs numpy, numba and the file (S27, S28).

# %%
baked = cn.bake(fit.model)
device_view = bench.picture(baked)
request = bench.request(0)
encoded = cn.render_and_encode(fit.model, request)

# %% [markdown]
# ## 5 · The same view, twice
#
# Both ways of the use case, side by side: the network renders and sends a compressed picture (S70, S71), or the
# device renders from the model it downloaded once (S69).

# %%
cn.figures.image_strip(
    {"truth": views.truths[0], "network inference": cn.decode_view(encoded), "device inference": device_view},
    truth=views.truths[0],
    notes={
        "network inference": f"{len(encoded.content) / 1e3:.0f} kB a view",
        "device inference": f"{baked.bytes / 1e6:.1f} MB once",
    },
    columns=3,
)

# %% [markdown]
# Two accounts: bytes for each view against bytes once. [Notebook 7](07_compare_views.ipynb) finds where they cross.

# %% tags=["check"]
flat = cn.psnr(views.truths[0].mean((0, 1)).expand_as(views.truths[0]), views.truths[0])
untrained = cn.psnr(bench.picture(cn.SHGrid(scene.bounds)), views.truths[0])
reached, on_device = cn.psnr(network_view, views.truths[0]), cn.psnr(device_view, views.truths[0])
assert reached > untrained + 1, (
    f"the field ({reached:.1f} dB) is hardly better than an untrained one ({untrained:.1f} dB)"
)
assert on_device > reached - 1.5, f"baking lost {reached - on_device:.1f} dB"
print(f"a new view: {reached:.1f} dB from the field, {on_device:.1f} dB from the device; one flat colour {flat:.1f} dB")

# %% [markdown]
# **Your prediction.** The line above has the answer: some 7 dB above one flat colour and far below a good JPEG, for a
# grid of finite resolution that learned for half a minute; and next to nothing is lost on the way into the device,
# which is the surprise that the rest of the series lives on.

# %% [markdown]
# ## What can go wrong
#
# - **`No module named 'crowdnerf_lab'`.** The notebook runs in another Python than the one that `make run` filled.
#   `make lab` opens the right one; elsewhere choose the kernel of `.venv`.
# - **Fewer dB than here.** Training stops after *seconds*. Beside a video call they hold half as many steps. With
#   `steps=` in place of `seconds=` the same seed gives the same field, bit for bit, however busy the machine is.
# - **Something seems to come from yesterday.** It does: what earlier runs made lies in `runs/` and is loaded again.
#   `make clean` removes it.
# - **One view is an anecdote.** Here it is the view that the figures show. [Notebook 3](03_train_radiance_field.ipynb)
#   judges by all of them.

# %% [markdown]
# ## Exercises
#
# Write your own answer in a new cell; the folded cell below each exercise holds a solution that checks itself.
#
# **Exercise 1.** Bake a smaller model: leave out the two finest levels of the grid. How many bytes does it save, and
# how many dB does it cost?

# %% jupyter={"source_hidden": true} tags=["solution"]
small = cn.bake(fit.model, levels=len(fit.model.shape.resolutions) - 2)
small_view = bench.picture(small)
lost = on_device - cn.psnr(small_view, views.truths[0])
print(f"{baked.bytes / 1e6:.2f} MB to {small.bytes / 1e6:.2f} MB for {lost:.2f} dB")
assert small.bytes < baked.bytes

# %% [markdown]
# **Exercise 2.** The network sends pictures. Ask for the same view at quality 30: what do you pay in dB for the bytes
# you save?

# %% jupyter={"source_hidden": true} tags=["solution"]
coarse = cn.render_and_encode(fit.model, request, quality=30)
received = as_colour(cn.decode_view(coarse))
print(f"{len(encoded.content)} to {len(coarse.content)} bytes, {cn.psnr(received, views.truths[0]):.1f} dB")
assert len(coarse.content) < len(encoded.content)

# %% [markdown]
# **Exercise 3.** Where is the stage? Use the depth of the view to find how many metres lie between its camera and the
# point in the middle of its picture, and where that point is in the world (row S4: a field knows metres).

# %% jupyter={"source_hidden": true} tags=["solution"]
rendered = cn.render_view(fit.model, views.cameras, index=0)
height, width = rendered.depth.shape
distance = float(rendered.depth[height // 2, width // 2])
point = views.cameras.positions[0] + distance * views.cameras.forward[0]
print(f"{distance:.1f} m away, at (east, north, up) = {[round(value, 1) for value in point.tolist()]} m")
assert 0 < distance < 100

# %% [markdown]
# ## Further reading
#
# - B. Mildenhall, P. P. Srinivasan, M. Tancik, J. T. Barron, R. Ramamoorthi, R. Ng: [NeRF: Representing Scenes as
#   Neural Radiance Fields for View Synthesis](https://arxiv.org/abs/2003.08934). ECCV 2020. Sections 3 and 4 are all
#   that this series assumes.
# - 3GPP TR 26.927: [Study on Artificial Intelligence and Machine Learning in 5G media
#   services](https://www.3gpp.org/DynaReport/26927.htm). Clause 4.2.4 is the use case.
# - S. Fridovich-Keil, A. Yu, M. Tancik, Q. Chen, B. Recht, A. Kanazawa: [Plenoxels: Radiance Fields without Neural
#   Networks](https://arxiv.org/abs/2112.05131). CVPR 2022. A field that is a grid, as here.
#
# **On to** [1 · What a crowd sends](01_crowd_ingest.ipynb), or straight to [3 · Training a radiance
# field](03_train_radiance_field.ipynb).
