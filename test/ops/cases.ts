import { adamwCases } from "./adamw.js";
import { addCases } from "./add.js";
import { argmaxCases } from "./argmax.js";
import { attentionCases } from "./attention.js";
import type { OpCase } from "./case.js";
import { columnsCases } from "./columns.js";
import { crossEntropyCases } from "./cross-entropy.js";
import { dropoutCases } from "./dropout.js";
import { embeddingCases } from "./embedding.js";
import { embeddingQuantisedCases } from "./embedding-quantised.js";
import { fillCases } from "./fill.js";
import { geluCases } from "./gelu.js";
import { klCases } from "./kl.js";
import { kvAppendCases } from "./kv-append.js";
import { layernormCases } from "./layernorm.js";
import { linearQuantisedCases } from "./linear-quantised.js";
import { matmulCases } from "./matmul.js";
import { rmsnormCases } from "./rmsnorm.js";
import { ropeCases } from "./rope.js";
import { sliceCases } from "./slice.js";
import { softmaxCases } from "./softmax.js";
import { squaredNormCases } from "./squared-norm.js";
import { swigluCases } from "./swiglu.js";
import { swigluFusedCases } from "./swiglu-fused.js";
import { viewCases } from "./view.js";

/** The cases of every op, by the name that a benchmark prints. */
export const cases: Readonly<Record<string, readonly OpCase[]>> = {
  fill: fillCases,
  add: addCases,
  view: viewCases,
  slice: sliceCases,
  columns: columnsCases,
  matmul: matmulCases,
  linear_quantised: linearQuantisedCases,
  attention: attentionCases,
  softmax: softmaxCases,
  rmsnorm: rmsnormCases,
  layernorm: layernormCases,
  rope: ropeCases,
  kv_append: kvAppendCases,
  swiglu: swigluCases,
  swiglu_fused: swigluFusedCases,
  gelu: geluCases,
  dropout: dropoutCases,
  embedding: embeddingCases,
  embedding_quantised: embeddingQuantisedCases,
  cross_entropy: crossEntropyCases,
  kl: klCases,
  adamw: adamwCases,
  squared_norm: squaredNormCases,
  argmax: argmaxCases,
};
