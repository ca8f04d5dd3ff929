/** Whether Node runs this; Deno and Bun call themselves Node too. */
export function isNode(): boolean {
  return hasNodeModules() && !("Deno" in globalThis) && !("Bun" in globalThis);
}

/** Whether `node:` modules can be imported: Node, Deno and Bun. */
export function hasNodeModules(): boolean {
  return typeof process !== "undefined" && Boolean(process.versions?.node);
}
