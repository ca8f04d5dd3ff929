// The exports of the kernel module: what the declarations in src/ops name, and the scratch address.

export { scratch, SCRATCH_BYTES } from "./simd";
export { tile_cols, tile_rows } from "./tile";
export { accumulate, add, bias_backward, columns, columns_backward, fill, slice, slice_backward } from "./elementwise";
export { matmul } from "./matmul";
export { attention, attention_backward, attention_delta } from "./attention";
export { softmax, softmax_backward } from "./softmax";
export {
  layernorm, layernorm_backward, layernorm_backward_weight, rmsnorm, rmsnorm_backward, rmsnorm_backward_weight,
} from "./norm";
export { kv_append } from "./cache";
export { rope } from "./rope";
export { gelu, gelu_backward, swiglu, swiglu_backward, swiglu_fused, swiglu_fused_backward } from "./activation";
export { embedding, embedding_backward } from "./embedding";
export { dropout, dropout_backward } from "./dropout";
export { cross_entropy, kl } from "./loss";
export { adamw, squared_norm } from "./adamw";
export { linear_quantised, linear_quantised_backward } from "./linear-quantised";
export { embedding_quantised } from "./quant";
export { argmax } from "./sample";
