import { type Command, InvalidArgumentError, Option } from "commander";
import type { Backend } from "../backend.js";
import { createBackend } from "../backends/create.js";
import { WEIGHT_TYPES } from "../dtype.js";
import { KV_TYPES } from "../model/kv-cache.js";

/** What every command takes. */
export interface GlobalOptions {
  readonly backend: "auto" | "wasm" | "webgpu";
  readonly threads?: number;
  /** Undefined where --seed is not given: a configuration file may then set it. */
  readonly seed?: number;
  readonly wasm?: "baseline" | "relaxed";
  readonly deterministic: boolean;
  readonly revectorize: boolean;
  readonly json: boolean;
}

/** Adds the options that every command takes. */
export function withGlobalOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--backend <kind>", "where to run").choices(["auto", "wasm", "webgpu"]).default("auto"),
    )
    .option("--threads <n>", "threads that share the work", integer(1))
    .option("--seed <n>", "of everything random (default: 0)", integer(0))
    .addOption(
      new Option("--wasm <build>", "build of the kernels (default: the best)").choices([
        "baseline",
        "relaxed",
      ]),
    )
    .option("--deterministic", "the same bits on every machine", false)
    .option("--revectorize", "let V8 pair 128-bit operations where it can (default)", true)
    .option("--no-revectorize", "run the kernels as they are")
    .option("--json", "machine-readable lines only on stdout", false);
}

/** What the weights of --model are kept as. */
export function dtypeOption(): Option {
  return new Option("--dtype <type>", "what weights are kept as; stored: as the file has them")
    .choices(["stored", ...WEIGHT_TYPES])
    .default("stored");
}

/** What keys and values are kept as. */
export function kvOption(): Option {
  return new Option("--kv <type>", "what keys and values are kept as: f16 takes half the memory")
    .choices(KV_TYPES)
    .default("f32");
}

/** The backend that the options ask for. */
export async function backendFor(options: GlobalOptions): Promise<Backend> {
  return createBackend({
    kind: options.backend,
    deterministic: options.deterministic,
    revectorize: options.revectorize,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.wasm === undefined ? {} : { wasm: options.wasm }),
  });
}

/** Parses an integer from `least` on. */
export function integer(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < least) {
      throw new InvalidArgumentError(`It must be an integer from ${least}.`);
    }
    return value;
  };
}

/** Parses a number in [least, most]. */
export function number(least: number, most = Infinity): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !(value >= least && value <= most)) {
      const range = most === Infinity ? `from ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`It must be a number ${range}.`);
    }
    return value;
  };
}

/** Parses token ids: `1,2,3`. */
export function idList(text: string): number[] {
  const ids = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)));
  if (ids.some((id) => !Number.isSafeInteger(id) || id < 0)) {
    throw new InvalidArgumentError("It must be token ids with commas between: 1,2,3.");
  }
  return ids;
}

/** Turns a parser that throws RangeError into one that commander reports as bad usage. */
export function parsed<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
    }
  };
}
