// Makes sure that the tests have a WebGPU adapter: where there is no GPU, the SwiftShader that Debian's chromium
// brings. Says what it found or did; without an adapter it fails with one line.

import { spawnSync } from "node:child_process";

/** In a process of its own: a driver that was installed later is not seen by one that has looked already. */
function adapter() {
  const script = `
    const { createBackend } = await import(${JSON.stringify(new URL("../dist/index.js", import.meta.url).href)});
    try {
      const backend = await createBackend({ kind: "webgpu" });
      console.log(backend.description);
      backend.dispose();
    } catch (error) {
      console.error(error.message);
      process.exitCode = 1;
    }`;
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
  });
  return { found: status === 0, text: (status === 0 ? stdout : stderr).trim().split("\n").at(-1) };
}

function apt(...args) {
  const { status, error } = spawnSync("apt-get", ["-qq", "-y", ...args], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
  });
  return !error && status === 0;
}

let result = adapter();
if (!result.found && process.platform === "linux" && process.getuid?.() === 0) {
  console.log("webgpu: no adapter; installing chromium for its SwiftShader (apt-get install chromium)");
  if (apt("update") && apt("install", "--no-install-recommends", "chromium")) result = adapter();
}
if (result.found) console.log(`webgpu tests run on: ${result.text}`);
else {
  console.error(`no WebGPU adapter for the tests: ${result.text}`);
  process.exitCode = 1;
}
