// What draws on the UE, without a page round it: for the tests, the benchmarks, and pages of your own.

export { StudentRenderer } from "./students/student_renderer.js";
export { texturesOfRows } from "./field/brick_textures.js";
export { FieldRenderer } from "./field/field_renderer.js";
