import type { Backend } from "../../backend.js";
import { attentionCases, prepareAttention } from "./attention.js";
import type { BenchCase } from "./case.js";
import { DECODE_DTYPES, decodeCases, prepareDecode } from "./decode.js";
import { matmulCases, prepareMatmul } from "./matmul.js";
import type { SuiteName } from "./names.js";
import type { Prepared } from "./serve.js";
import { prepareTrain, trainCases } from "./train.js";

/** What belongs together on the command line. */
export interface Suite {
  readonly cases: readonly BenchCase[];
  /** Sets a case up on our engine. */
  prepare(backend: Backend, benchCase: BenchCase): Promise<Prepared>;
  /** The dtypes that our engine does. */
  readonly dtypes: readonly string[];
  /** Times as long as others are measured; a training step is a long pass. */
  readonly patience: number;
}

/** The suites by name. */
export const SUITES: Readonly<Record<string, Suite>> = {
  matmul: { cases: matmulCases, prepare: prepareMatmul, dtypes: ["f32"], patience: 1 },
  attention: { cases: attentionCases, prepare: prepareAttention, dtypes: ["f32"], patience: 1 },
  train: { cases: trainCases, prepare: prepareTrain, dtypes: ["f32"], patience: 4 },
  decode: { cases: decodeCases, prepare: prepareDecode, dtypes: DECODE_DTYPES, patience: 1 },
} satisfies Record<SuiteName, Suite>;
