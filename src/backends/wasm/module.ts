import { BackendError } from "../../errors.js";

/** The builds of `assembly/`: relaxed SIMD has a fused multiply-add, baseline runs wherever SIMD does. */
export type WasmBuild = "baseline" | "relaxed";

/** `(func (result v128) … f32x4.relaxed_madd)`: valid exactly where relaxed SIMD is. */
const RELAXED_PROBE = Uint8Array.of(
  // magic, version
  0x00,
  0x61,
  0x73,
  0x6d,
  0x01,
  0x00,
  0x00,
  0x00,
  // type section: () -> v128
  0x01,
  0x05,
  0x01,
  0x60,
  0x00,
  0x01,
  0x7b,
  // function section
  0x03,
  0x02,
  0x01,
  0x00,
  // code section: three times i32.const 0, i32x4.splat; f32x4.relaxed_madd
  0x0a,
  0x13,
  0x01,
  0x11,
  0x00,
  0x41,
  0x00,
  0xfd,
  0x11,
  0x41,
  0x00,
  0xfd,
  0x11,
  0x41,
  0x00,
  0xfd,
  0x11,
  0xfd,
  0x85,
  0x02,
  0x0b,
);

/** Whether this runtime compiles relaxed SIMD. */
export function supportsRelaxedSimd(): boolean {
  return WebAssembly.validate(RELAXED_PROBE);
}

/** The build to use: the best that validates, or the one asked for. */
export function chooseBuild(wanted: WasmBuild | "auto", deterministic: boolean): WasmBuild {
  if (wanted !== "auto" && wanted !== "baseline" && wanted !== "relaxed") {
    throw new RangeError(`wasm must be 'auto', 'baseline' or 'relaxed', got '${wanted}'`);
  }
  if (wanted === "relaxed" && deterministic) {
    throw new RangeError("wasm: 'relaxed' rounds as the processor does; deterministic needs 'baseline'");
  }
  if (wanted === "relaxed" && !supportsRelaxedSimd()) {
    throw new BackendError(
      "wasm: this runtime has no relaxed SIMD (Node 22 and later have it); use 'baseline'",
    );
  }
  if (wanted !== "auto") return wanted;
  return !deterministic && supportsRelaxedSimd() ? "relaxed" : "baseline";
}

/** A build's bytes, and a digest that no other build has. */
export interface BuildBytes {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly digest: string;
}

/**
 * A build, from what is inlined into the package.
 * @param shared for a memory that threads share: a module that imports one kind does not link to the other
 */
export async function buildBytes(build: WasmBuild, shared: boolean): Promise<BuildBytes> {
  const { wasm, digest } = await INLINED[shared ? (`${build}-shared` as const) : build]();
  return { bytes: fromBase64(wasm), digest };
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  // 50 times as fast as the loop, which is a millisecond of every start.
  if (typeof Buffer !== "undefined") return Buffer.from(text, "base64");
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** One file each, so that only the build that is used is loaded. */
const INLINED = {
  baseline: () => import("../../generated/wasm/baseline.js"),
  relaxed: () => import("../../generated/wasm/relaxed.js"),
  "baseline-shared": () => import("../../generated/wasm/baseline-shared.js"),
  "relaxed-shared": () => import("../../generated/wasm/relaxed-shared.js"),
} as const;
