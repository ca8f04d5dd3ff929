import type { Backend } from "../backend.js";
import type { Tape } from "../tape.js";
import { Parameters, type Tensor } from "../tensor.js";
import type { ModelConfig, PositionConfig } from "./config.js";
import type { Model } from "./model.js";
import { ropeFrequencies } from "./rope-frequencies.js";

/** Throws TypeError for a model with learned positions. */
export function rotaryOf({ position }: ModelConfig): Extract<PositionConfig, { kind: "rope" }> {
  if (position.kind !== "rope") throw new TypeError("ropeTables: the model has learned positions");
  return position;
}

/**
 * The cosines and sines of `rows` positions from `first` on, each (rows, rotated / 2), times what the scaling makes of
 * them: so it reaches the scores through q and k.
 * @param length the longest sequence of the pass
 */
function ropeValues(
  config: ModelConfig,
  first: number,
  rows: number,
  length: number,
): { shape: readonly number[]; cos: Float32Array; sin: Float32Array } {
  const { theta, scaling, rotaryDim = config.headDim } = rotaryOf(config);
  const frequencies = ropeFrequencies(rotaryDim, theta, scaling, length);
  const half = frequencies.length;
  const factor = "attentionFactor" in scaling ? scaling.attentionFactor : 1;
  const table = (of: (angle: number) => number) =>
    Float32Array.from({ length: rows * half }, (_, i) => {
      const angle = (first + Math.floor(i / half)) * (frequencies[i % half] as number);
      return factor * of(angle);
    });
  return { shape: [rows, half], cos: table(Math.cos), sin: table(Math.sin) };
}

/** The cosines and sines of positions 0 … length - 1, each (length, rotated / 2), as sequences of `length` have them. */
export class RopeTables {
  readonly #parameters: Parameters;
  readonly cos: Tensor;
  readonly sin: Tensor;

  constructor(
    readonly backend: Backend,
    config: ModelConfig,
    readonly length: number,
  ) {
    const { shape, cos, sin } = ropeValues(config, 0, length, length);
    this.#parameters = new Parameters(
      backend,
      new Map([
        ["cos", shape],
        ["sin", shape],
      ]),
      { use: "tables" },
    );
    this.cos = this.#parameters.get("cos");
    this.sin = this.#parameters.get("sin");
    this.cos.write(cos);
    this.sin.write(sin);
  }

  dispose(): void {
    this.#parameters.dispose();
  }
}

/** Tables for a pass, and the position of their first row. */
export interface PassTables {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly first: number;
}

/**
 * What a pass over `rows` positions from `position` on is rotated with. Where the frequencies are those of this one
 * length (dynamic scaling) they are made for the pass; else the model keeps them.
 * @param length of the sequence that the pass is a part of
 */
export function passTables(
  tape: Tape,
  model: Model,
  position: number,
  rows: number,
  length: number,
): PassTables {
  const { config } = model;
  const { scaling } = rotaryOf(config);
  if (scaling.kind !== "dynamic" || length <= scaling.originalContextLength) {
    const { cos, sin } = model.ropeTables(length, tape.backend);
    return { cos, sin, first: 0 };
  }
  const { shape, cos, sin } = ropeValues(config, position, rows, length);
  return { cos: tape.from(cos, shape), sin: tape.from(sin, shape), first: position };
}
