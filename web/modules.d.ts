// What build.mjs makes of imports that are no JavaScript.

declare module "*?bundled" {
  const text: string;
  export default text;
}
declare module "*.frag" {
  const text: string;
  export default text;
}
declare module "*.vert" {
  const text: string;
  export default text;
}
