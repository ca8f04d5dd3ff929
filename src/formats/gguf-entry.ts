/** A value of a GGUF file's metadata with its type, to be written. */
export type GgufEntry =
  | { readonly type: "u32" | "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "f32s" | "i32s"; readonly value: ArrayLike<number> };

export function u32(value: number): GgufEntry {
  return { type: "u32", value };
}

export function f32(value: number): GgufEntry {
  return { type: "f32", value };
}

export function bool(value: boolean): GgufEntry {
  return { type: "bool", value };
}

export function string(value: string): GgufEntry {
  return { type: "string", value };
}

export function strings(value: readonly string[]): GgufEntry {
  return { type: "strings", value };
}

export function f32s(value: ArrayLike<number>): GgufEntry {
  return { type: "f32s", value };
}

export function i32s(value: ArrayLike<number>): GgufEntry {
  return { type: "i32s", value };
}
