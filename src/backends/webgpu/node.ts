// Node only: finds an adapter for Dawn, the WebGPU of Chromium, which npm `webgpu` brings to Node.

import { readdirSync } from "node:fs";
import { constants, homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { isMainThread } from "node:worker_threads";
import { BackendError } from "../../errors.js";

/** Where Chromium's packages put SwiftShader, a Vulkan driver that computes on the CPU. */
const CHROMIUM = [
  "/usr/lib/chromium",
  "/usr/lib64/chromium-browser",
  "/usr/lib/chromium-browser",
  "/opt/google/chrome",
  "/opt/chromium.org/chromium",
  "/snap/chromium/current/usr/lib/chromium-browser",
];
const SWIFTSHADER = "vk_swiftshader_icd.json";
/** glibc's RTLD_NODELETE, which Node does not name: keep the library when its handle is closed. */
const KEEP = 0x1000;

/**
 * The kernels never read workgroup memory that they did not write, and SwiftShader's compiler takes ten times
 * as long where Dawn has it zeroed first (attention: 2.6 s against 0.25 s, measured).
 */
const DAWN = ["enable-dawn-features=disable_workgroup_init"];

/** An adapter, and the instance that it lives on. */
export interface NodeAdapter {
  readonly adapter: GPUAdapter;
  /** Dawn crashes the process once this is collected: whoever uses the adapter or its device must hold it. */
  readonly gpu: GPU;
}

/**
 * An adapter of the system's driver, else of the SwiftShader that Chromium brought, for which the environment
 * (VK_DRIVER_FILES, VK_ICD_FILENAMES, XDG_RUNTIME_DIR) is set where it says nothing yet.
 * @throws BackendError that says what to install
 */
export async function findNodeAdapter(request: GPURequestAdapterOptions): Promise<NodeAdapter> {
  let create: typeof import("webgpu").create;
  try {
    ({ create } = await import("webgpu"));
  } catch (cause) {
    throw new BackendError("webgpu: Node needs the package 'webgpu' (Dawn): npm install webgpu", { cause });
  }
  // An instance sees the drivers of the moment when it is made, so each try takes a new one.
  const tryAdapter = async () => {
    const gpu = create(DAWN);
    const adapter = await gpu.requestAdapter(request);
    return adapter ? { adapter, gpu } : undefined;
  };
  if (process.platform !== "linux") {
    const found = await tryAdapter();
    if (found) return found;
    throw new BackendError("webgpu: no adapter was found: install the GPU's driver");
  }

  const chosen = Boolean(process.env.VK_DRIVER_FILES ?? process.env.VK_ICD_FILENAMES);
  const swiftshader = findSwiftShader();
  loadVulkan(swiftshader);
  // Without a driver Dawn would answer null too, but write warnings to stderr.
  if (chosen || systemHasDriver()) {
    const found = await tryAdapter();
    if (found) return found;
  }
  if (swiftshader && !chosen) {
    process.env.VK_DRIVER_FILES = swiftshader;
    process.env.VK_ICD_FILENAMES = swiftshader;
    process.env.XDG_RUNTIME_DIR ??= tmpdir();
    const found = await tryAdapter();
    if (found) return found;
    if (!isMainThread) {
      throw new BackendError(
        `webgpu: in a worker thread set VK_DRIVER_FILES=${swiftshader} before Node starts`,
      );
    }
  }
  throw new BackendError(
    chosen
      ? "webgpu: no adapter was found: the driver that VK_DRIVER_FILES or VK_ICD_FILENAMES names does not load"
      : "webgpu: no adapter was found: install the GPU's Vulkan driver, or chromium for its SwiftShader",
  );
}

function findSwiftShader(): string | undefined {
  return CHROMIUM.map((folder) => join(folder, SWIFTSHADER)).find((file) =>
    filesOf(dirname(file)).includes(SWIFTSHADER),
  );
}

/** Whether one of the folders that the Vulkan loader searches describes a driver. */
function systemHasDriver(): boolean {
  const { XDG_CONFIG_DIRS, XDG_DATA_DIRS, XDG_CONFIG_HOME, XDG_DATA_HOME } = process.env;
  const roots = [
    ...(XDG_CONFIG_DIRS || "/etc/xdg").split(":"),
    ...(XDG_DATA_DIRS || "/usr/local/share:/usr/share").split(":"),
    XDG_CONFIG_HOME || join(homedir(), ".config"),
    XDG_DATA_HOME || join(homedir(), ".local/share"),
    "/etc",
    "/usr/local/etc",
  ];
  return roots.some((root) => filesOf(join(root, "vulkan/icd.d")).some((file) => file.endsWith(".json")));
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/**
 * Makes sure that Dawn finds the Vulkan loader, libvulkan.so.1: where the system has none, the one beside
 * SwiftShader is loaded by its path, and the dynamic linker then answers to its name. `process.dlopen` throws
 * either way, since it is no addon of Node, but what it has loaded with KEEP stays.
 */
function loadVulkan(swiftshader: string | undefined): void {
  const paths = ["libvulkan.so.1", ...(swiftshader ? [join(dirname(swiftshader), "libvulkan.so.1")] : [])];
  for (const path of paths) {
    try {
      process.dlopen({ exports: {} }, path, constants.dlopen.RTLD_NOW | KEEP);
    } catch (error) {
      if (error instanceof Error && error.message.includes("self-register")) return;
    }
  }
}
