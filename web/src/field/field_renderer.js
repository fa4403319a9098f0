// Draws a baked field with the reader's own graphics processor: march.frag in WebGL2, into a canvas.

import fragmentSource from "./march.frag";
import vertexSource from "./march.vert";

/**
 * A pinhole camera.
 *
 * @typedef {object} Camera
 * @property {ArrayLike<number>} cameraToWorld - rows of [3 4], OpenCV axes (right, down, forward), metres
 * @property {ArrayLike<number>} focal - along x and y, pixels
 * @property {ArrayLike<number>} centre - principal point, pixels
 * @property {number} width - pixels
 * @property {number} height - pixels
 */

/** @typedef {import("./brick_textures.js").BrickTextures} BrickTextures */

/** Preserved, so that the canvas can be copied or saved also after the page has shown it. */
const CONTEXT = {
  alpha: false,
  antialias: false,
  depth: false,
  powerPreference: "high-performance",
  preserveDrawingBuffer: true,
};
const INTERVALS = [1, 2, 4];
/** Texture units. */
const CELLS = 0;
const BRICKS = 1;

/**
 * What this browser draws with, or null when it has no WebGL2.
 *
 * @returns {{name: string, software: boolean} | null}
 */
export function graphicsProcessor() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return null;
  const named = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(named ? named.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return { name, software: /swiftshader|llvmpipe|software|basic render/i.test(name) };
}

/** Marches one baked field, as often as asked, into one canvas. */
export class FieldRenderer {
  #canvas;
  #textures;
  /** @type {WebGL2RenderingContext} */
  #gl;
  #program;
  #uniforms = new Map();
  #target;
  /** @type {[number, number]} */
  #size = [0, 0];

  /**
   * @param {HTMLCanvasElement | OffscreenCanvas} canvas - that has no context yet
   * @param {BrickTextures} textures
   * @throws {Error} when the browser has no WebGL2, or the field is too large for its graphics processor
   */
  constructor(canvas, textures) {
    const gl = /** @type {WebGL2RenderingContext | null} */ (canvas.getContext("webgl2", CONTEXT));
    if (!gl) throw new Error("this browser offers no WebGL2; choose a light field, or views from the network");
    this.#canvas = canvas;
    this.#textures = textures;
    this.#gl = gl;
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => this.#prepare());
    this.#prepare();
  }

  /** Bytes on the graphics processor: both textures. */
  get bytes() {
    return this.#textures.cells.byteLength + this.#textures.bricks.length;
  }

  /** Whether the system took the graphics processor away; it draws again once it is given back. */
  get lost() {
    return this.#gl.isContextLost();
  }

  /**
   * Draw a view over the whole canvas, which becomes as large as the view.
   *
   * @param {Camera} camera
   * @param {{scale?: number}} [options] - scale: of the pixels that are marched, in (0, 1]; the rest is interpolated
   * @returns {Promise<number>} milliseconds until the graphics processor had drawn it
   */
  async draw(camera, { scale = 1 } = {}) {
    const started = performance.now();
    const size = [Math.max(1, Math.round(scale * camera.width)), Math.max(1, Math.round(scale * camera.height))];
    this.#resize(size);
    this.#look(camera, size);
    this.#gl.drawArrays(this.#gl.TRIANGLES, 0, 3);
    this.#present(camera);
    await this.#finished();
    return performance.now() - started;
  }

  /**
   * The picture drawn last, at the size it was marched.
   *
   * @returns {{rgba: Uint8ClampedArray, width: number, height: number}} rows from the top
   */
  pixels() {
    const [width, height] = this.#size;
    const rgba = new Uint8ClampedArray(4 * width * height);
    this.#read(0, [0, 0, width, height], rgba);
    return { rgba: flipped(rgba, width, height), width, height };
  }

  /**
   * What lies behind a point of the picture drawn last.
   *
   * @param {number} x - from the left, in [0, 1)
   * @param {number} y - from the top, in [0, 1)
   * @returns {{distance: number, opacity: number}} mean distance along the ray in metres; opacity in [0, 1]
   */
  pick(x, y) {
    const [width, height] = this.#size;
    const bytes = new Uint8Array(4);
    this.#read(1, [Math.floor(x * width), height - 1 - Math.floor(y * height), 1, 1], bytes);
    const { near, far } = this.#textures;
    const share = bytes[0] / 255 + bytes[1] / 255 ** 2 + bytes[2] / 255 ** 3;
    return { distance: near * (far / near) ** share, opacity: bytes[3] / 255 };
  }

  /** Give the graphics processor's memory back; the renderer cannot be used any more. */
  dispose() {
    this.#gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  #prepare() {
    const gl = this.#gl;
    this.#checkLimits();
    this.#uniforms.clear();
    this.#program = programOf(gl, this.#textures.units.length / 4);
    gl.useProgram(this.#program);
    gl.bindVertexArray(gl.createVertexArray());
    this.#upload();
    this.#describe();
    this.#target = { framebuffer: gl.createFramebuffer(), attachments: [gl.createTexture(), gl.createTexture()] };
    this.#size = [0, 0];
  }

  #checkLimits() {
    const most = this.#gl.getParameter(this.#gl.MAX_3D_TEXTURE_SIZE);
    const side = Math.max(this.#textures.cellsASide, ...this.#textures.bricksShape);
    if (side > most) {
      throw new Error(`the field's textures are ${side} texels a side but this device holds ${most}; choose a smaller`);
    }
  }

  #upload() {
    const gl = this.#gl;
    const { cells, cellsASide, bricks, bricksShape } = this.#textures;
    const cube = [cellsASide, cellsASide, cellsASide];
    textureOf(gl, CELLS, { format: [gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT], shape: cube, filter: gl.NEAREST }, cells);
    const rgba = [gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE];
    textureOf(gl, BRICKS, { format: rgba, shape: bricksShape, filter: gl.LINEAR }, bricks);
  }

  /** Tell the shader all that stays the same from view to view. */
  #describe() {
    const gl = this.#gl;
    const field = this.#textures;
    const [depth, height, width] = field.bricksShape;
    const texels = field.units.length / 4;
    const units = Array.from({ length: texels }, (_, j) => [...field.units.subarray(4 * j, 4 * j + 3)]);
    const kinds = INTERVALS.map((parts, k) => {
      const v = parts + 1;
      return [v, Math.floor(width / (texels * v)), Math.floor(height / v), field.kind_begins[k]];
    });
    gl.uniform1i(this.#at("cells"), CELLS);
    gl.uniform1i(this.#at("bricks"), BRICKS);
    gl.uniform3fv(this.#at("centre"), field.centre);
    gl.uniform3fv(this.#at("inverseHalf"), Array.from(field.half_size, (half) => 1 / half));
    gl.uniform1f(this.#at("cellsASide"), field.cellsASide);
    gl.uniform4fv(this.#at("kinds"), [0, 1, 1, 0, ...kinds.flat()]);
    gl.uniform3f(this.#at("texel"), 1 / width, 1 / height, 1 / depth);
    gl.uniform3fv(this.#at("units"), units.flat().map((unit) => 255 * unit));
    gl.uniform2f(this.#at("logDensity"), -field.zero_log_density * field.units[3], 255 * field.units[3]);
    gl.uniform1f(this.#at("densityScale"), field.density_scale);
    for (const name of ["near", "far", "ratio", "refine", "finest"]) gl.uniform1f(this.#at(name), field[name]);
    gl.uniform3fv(this.#at("background"), field.background);
  }

  #look({ cameraToWorld: m, focal, centre, width, height }, size) {
    const gl = this.#gl;
    const [sx, sy] = [size[0] / width, size[1] / height];
    gl.uniformMatrix3fv(this.#at("rotation"), true, [m[0], m[1], m[2], m[4], m[5], m[6], m[8], m[9], m[10]]);
    gl.uniform3f(this.#at("eye"), m[3], m[7], m[11]);
    gl.uniform2f(this.#at("focal"), focal[0] * sx, focal[1] * sy);
    gl.uniform2f(this.#at("principal"), centre[0] * sx, centre[1] * sy);
    gl.uniform1f(this.#at("height"), size[1]);
  }

  /** Make what is marched into as large as asked: colour, and where it comes from. */
  #resize(size) {
    const gl = this.#gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.#target.framebuffer);
    if (size[0] !== this.#size[0] || size[1] !== this.#size[1]) {
      gl.activeTexture(gl.TEXTURE2);
      const points = this.#target.attachments.map((texture, i) => {
        gl.bindTexture(gl.TEXTURE_2D, texture);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, size[0], size[1], 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
        gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + i, gl.TEXTURE_2D, texture, 0);
        return gl.COLOR_ATTACHMENT0 + i;
      });
      gl.drawBuffers(points);
      this.#size = size;
    }
    gl.viewport(0, 0, size[0], size[1]);
  }

  #present({ width, height }) {
    const gl = this.#gl;
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
    }
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.#target.framebuffer);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
    gl.readBuffer(gl.COLOR_ATTACHMENT0);
    gl.blitFramebuffer(0, 0, ...this.#size, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.LINEAR);
  }

  /**
   * @param {number} attachment
   * @param {[x: number, y: number, width: number, height: number]} rectangle - from the bottom left
   * @param {Uint8Array | Uint8ClampedArray} bytes - RGBA, filled
   */
  #read(attachment, rectangle, bytes) {
    const gl = this.#gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.#target.framebuffer);
    gl.readBuffer(gl.COLOR_ATTACHMENT0 + attachment);
    gl.readPixels(...rectangle, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  }

  /** Resolves when everything asked of the graphics processor is done, without keeping the page waiting. */
  async #finished() {
    const gl = this.#gl;
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    while (fence && !gl.isContextLost() && gl.clientWaitSync(fence, 0, 0) === gl.TIMEOUT_EXPIRED) {
      await new Promise((resolve) => setTimeout(resolve));
    }
    gl.deleteSync(fence);
  }

  #at(name) {
    if (!this.#uniforms.has(name)) this.#uniforms.set(name, this.#gl.getUniformLocation(this.#program, name));
    return this.#uniforms.get(name);
  }
}

/**
 * A 3-D texture on a unit of its own; shape: depth, height, width.
 *
 * @param {WebGL2RenderingContext} gl
 * @param {number} unit
 * @param {{format: number[], shape: number[], filter: number}} layout
 * @param {Uint8Array | Uint32Array} values
 */
function textureOf(gl, unit, { format: [internal, format, type], shape: [depth, height, width], filter }, values) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
  for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, wrap, gl.CLAMP_TO_EDGE);
  }
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, filter);
  gl.texStorage3D(gl.TEXTURE_3D, 1, internal, width, height, depth);
  gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, width, height, depth, format, type, values);
}

function programOf(gl, texels) {
  const program = gl.createProgram();
  const defined = fragmentSource.replace("\n", `\n#define TEXELS ${texels}\n`);
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexSource], [gl.FRAGMENT_SHADER, defined]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new Error(`this graphics processor refuses the shader: ${gl.getShaderInfoLog(shader)}`);
    }
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`this graphics processor refuses the shader: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}

/** Rows from the top instead of from the bottom. */
function flipped(rgba, width, height) {
  const upright = new Uint8ClampedArray(rgba.length);
  for (let row = 0; row < height; row++) {
    upright.set(rgba.subarray(4 * width * row, 4 * width * (row + 1)), 4 * width * (height - 1 - row));
  }
  return upright;
}
