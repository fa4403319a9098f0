#version 300 es
// Marches a baked field, one ray a pixel. The layout of the textures and the rules of the march are those of
// crowdnerf_lab/fields/brick_textures.py; the picture is that of crowdnerf_lab/kernels/bricks_cpu.py.
//
// Lengths are metres along the unit direction of the ray. "Box units": the box that is not contracted is [-1, 1]^3.
// TEXELS of a vertex: 1 at SH degree 0; 4 at degree 1, of which the last three turn with the direction of view.

precision highp float;
precision highp int;
precision highp sampler3D;
precision highp usampler3D;

uniform usampler3D cells;  // one word a cell, (z, y, x)
uniform sampler3D bricks;  // RGBA bytes, filtered

uniform mat3 rotation;  // camera to world; columns are the camera's right, down and forward
uniform vec3 eye;
uniform vec2 focal, principal;  // pixels
uniform float height;           // pixels

uniform vec3 centre, inverseHalf;  // of the box
uniform float cellsASide;
uniform vec4 kinds[4];  // by kind of brick: vertices a side, bricks across, bricks down, depth at which they begin
uniform vec3 texel;     // of the atlas, in texture coordinates
uniform vec3 units[TEXELS];  // logits of 255 bytes
uniform vec2 logDensity;     // of alpha: log density of 0, and of 1 less that of 0
uniform float densityScale;  // per metre

uniform float near, far, ratio, refine, finest;
uniform vec3 background;

layout(location = 0) out vec4 colour;
layout(location = 1) out vec4 place;  // 24 bits of log(mean distance / near) / log(far / near), and opacity

const float OPAQUE = 1.0 / 256.0;  // what passes then changes no byte by more than one
const float ZERO = 128.0 / 255.0;      // the sample that stands for a logit of 0
const float SH1 = 1.7320508;
const float HIGHEST_LOG_DENSITY = 11.0;

float largest(vec3 p) { return max(p.x, max(p.y, p.z)); }

// Box units to (-2, 2): what lies outside the box is bent into the shell around it.
vec3 contracted(vec3 p) {
  vec3 away = abs(p);
  float m = largest(away);
  float inverse = 1.0 / max(m, 1.0);
  return p * mix(vec3(inverse), vec3((2.0 - inverse) * inverse), equal(away, vec3(m)));
}

// How far a ray at p gets, in box units along its fastest axis, while it moves at most `reach` in the contracted cube.
// Where another axis becomes the largest the contraction jumps: no leap crosses that.
float clearance(vec3 p, float reach) {
  vec3 away = abs(p);
  float m = largest(away);
  if (m <= 1.0) return min(reach, 1.0 - m);
  float second = max(min(away.x, away.y), min(max(away.x, away.y), away.z));
  return 0.5 * min(reach, m - second);
}

// Where in the atlas, in texture coordinates, a brick is to be sampled at `inside` [0, 1)^3 of its cell.
vec3 brickAt(uint word, vec4 kind, vec3 inside) {
  float number = float(word & 0x3fffffu);
  float row = floor((number + 0.5) / kind.y), layer = floor((row + 0.5) / kind.z);
  vec3 corner = kind.x * vec3(float(TEXELS) * (number - row * kind.y), row - layer * kind.z, layer);
  return (corner + vec3(0.5, 0.5, 0.5 + kind.w) + (kind.x - 1.0) * inside.zyx) * texel;
}

vec4 packedPlace(float distance, float opacity) {
  float where = clamp(log(max(distance, near) / near) / log(far / near), 0.0, 1.0) * 255.0;
  vec3 digits = vec3(floor(where), floor(fract(where) * 255.0), fract(fract(where) * 255.0) * 255.0);
  return vec4(digits / 255.0, opacity);
}

void main() {
  vec2 pixel = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 direction = normalize(rotation * vec3((pixel - principal) / focal, 1.0));
  vec3 origin = (eye - centre) * inverseHalf, along = direction * inverseHalf;
  float perUnit = 1.0 / largest(abs(along));
  float size = 4.0 / cellsASide, perRatio = 1.0 / log2(ratio), middle = 0.5 * (1.0 + ratio);
  vec3 base = units[0], dark = -ZERO * base;  // logits of whole samples, and of samples of zeros
#if TEXELS == 4
  vec3 turnX = SH1 * direction.x * units[1], turnY = SH1 * direction.y * units[2], turnZ = SH1 * direction.z * units[3];
  dark -= ZERO * (turnX + turnY + turnZ);
#endif

  vec3 light = vec3(0.0);
  float passes = 1.0, expected = 1.0, depth = 0.0;
  // A step is looked at in its middle first (parts = 1), then, where that says so, taken in parts.
  float t = near * sqrt(ratio), parts = 1.0, part = 0.0;
  bool divided = false;
  while (t * middle < far && passes >= OPAQUE) {
    float stretch = t * (ratio - 1.0) / parts;
    float at = t + (part + 0.5) * stretch;
    vec3 p = origin + at * along;
    vec3 scaled = clamp(contracted(p) / size + 0.5 * cellsASide, 0.0, cellsASide - 0.001);
    vec3 cell = floor(scaled);
    uint word = texelFetch(cells, ivec3(cell.zyx), 0).r;
    bool empty = (word >> 22u & 3u) == 0u;
    if (!divided) {
      if (empty) {
        float end = at + perUnit * clearance(p, (float(word >> 24u) - 1.0) * size);
        t *= exp2(max(ceil(log2(end / (t * middle)) * perRatio), 1.0) / perRatio);
        continue;
      }
      float through = exp(-exp((float(word >> 24u) - 128.0) / 16.0) * densityScale * stretch);
      parts = clamp(ceil(refine * expected * (1.0 - through)), 1.0, finest);
      expected *= through;
      divided = true;
      if (parts > 1.0) continue;
    }
    if (!empty) {
      vec4 kind = kinds[word >> 22u & 3u];
      vec3 where = brickAt(word, kind, scaled - cell);
      vec4 found = textureLod(bricks, where, 0.0);
      vec3 logit = dark + base * found.rgb;
#if TEXELS == 4
      float next = kind.x * texel.x;
      logit += turnX * textureLod(bricks, vec3(where.x + next, where.yz), 0.0).rgb;
      logit += turnY * textureLod(bricks, vec3(where.x + 2.0 * next, where.yz), 0.0).rgb;
      logit += turnZ * textureLod(bricks, vec3(where.x + 3.0 * next, where.yz), 0.0).rgb;
#endif
      float density = densityScale * exp(min(logDensity.x + logDensity.y * found.a, HIGHEST_LOG_DENSITY));
      float through = exp(-density * stretch);
      float weight = passes * (1.0 - through);
      light += weight / (1.0 + exp(-logit));
      depth += weight * at;
      passes *= through;
    }
    part += 1.0;
    if (part == parts) {
      t *= ratio;
      parts = 1.0;
      part = 0.0;
      divided = false;
    }
  }
  colour = vec4(light + passes * background, 1.0);
  place = packedPlace(depth / max(1.0 - passes, 1e-6), 1.0 - passes);
}
