import { BackendError } from "../../errors.js";
import { wgsl } from "../../generated/wgsl.js";
import { WebGPUBackend } from "./backend.js";

/** Where a WebGPU backend gets its device. */
export interface WebGPUOptions {
  /** A device to share; it outlives the backend. */
  readonly device?: GPUDevice;
  /** An adapter to request a device of. */
  readonly adapter?: GPUAdapter;
  readonly powerPreference?: GPUPowerPreference;
}

/** Limits for which all that the adapter has is asked for. */
const LIMITS = ["maxBufferSize", "maxStorageBufferBindingSize", "maxStorageBuffersPerShaderStage"] as const;

/**
 * Makes a WebGPU backend, in a page or a worker on `navigator.gpu`, in Node on Dawn (npm `webgpu`).
 * @throws BackendError where there is no adapter, or it refuses a device
 */
export async function createWebGPUBackend(options: WebGPUOptions = {}): Promise<WebGPUBackend> {
  if (options.device) {
    const description = describe(options.device.adapterInfo);
    return new WebGPUBackend(options.device, { description, owned: false, sources: wgsl });
  }
  const { adapter, gpu } = options.adapter
    ? { adapter: options.adapter, gpu: undefined }
    : await requestAdapter(options.powerPreference);
  if (isNull(adapter.info)) {
    throw new BackendError("webgpu: Dawn's null backend computes nothing; ask for another adapter");
  }
  const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({ requiredLimits });
  } catch (cause) {
    throw new BackendError(`webgpu: the adapter refuses a device: ${String(cause)}`, { cause });
  }
  return new WebGPUBackend(device, { description: describe(adapter.info), owned: true, sources: wgsl, gpu });
}

async function requestAdapter(
  powerPreference?: GPUPowerPreference,
): Promise<{ adapter: GPUAdapter; gpu: GPU }> {
  const request = powerPreference ? { powerPreference } : {};
  if (typeof navigator !== "undefined" && "gpu" in navigator) {
    const adapter = await navigator.gpu.requestAdapter(request);
    if (adapter) return { adapter, gpu: navigator.gpu };
    throw new BackendError(
      "webgpu: the browser has no adapter: no GPU, a blocked driver, or WebGPU is switched off",
    );
  }
  if (typeof process === "undefined" || !process.versions?.node) {
    throw new BackendError("webgpu: this runtime has no navigator.gpu");
  }
  const { findNodeAdapter } = await import("./node.js");
  return findNodeAdapter(request);
}

/** Whether it is Dawn's null backend, which accepts work and computes nothing. */
function isNull(info: GPUAdapterInfo): boolean {
  return info.device === "null-backend" || /\bnull\b/i.test(info.description);
}

function describe(info: GPUAdapterInfo | undefined): string {
  const name = info?.description || info?.device || info?.architecture || info?.vendor;
  return name ? `webgpu (${name})` : "webgpu";
}
