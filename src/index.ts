// The public API.

export type { Backend, MemoryReport, MemoryUse } from "./backend.js";
export { type BackendOptions, createBackend } from "./backends/create.js";
export type { DType, KeptType, StorageType, WeightType } from "./dtype.js";
export { BackendError, DivergenceError, FormatError, UnsupportedError } from "./errors.js";
export {
  ATTACK_DEFAULTS,
  type AttackConfig,
  type AttackName,
  type AttackProgress,
  parseAttacks,
  type RunAttacksOptions,
  runAttacks,
} from "./eval/attacks/run.js";
export { type EvaluationInput, type EvaluationOptions, evaluate, type Findings } from "./eval/evaluate.js";
export type { Evaluation } from "./eval/evaluation.js";
export { auroc, averagePrecision, tprAtFpr } from "./eval/metrics.js";
export { ADVERSARIAL, type AdversarialOptions, adversarialLoss } from "./flag/adversarial.js";
export { type CalibrateOptions, calibrate, type LevelRule, parseLevelRule } from "./flag/calibrate.js";
export type { Calibration, CalibrationFit } from "./flag/calibration.js";
export { type FlagSequence, type SequenceOptions, toSequence, usableSequences } from "./flag/data.js";
export { type Decision, formatDecision, parseDecision } from "./flag/decision.js";
export {
  type ExportFiles,
  type ExportFormat,
  type ExportOptions,
  exportFiles,
  exportModel,
} from "./flag/export.js";
export {
  type BatchGenerateStep,
  type CommonGenerateOptions,
  createCache,
  type GenerateBatchOptions,
  type GenerateOptions,
  type GenerateResult,
  type GenerateStep,
  generate,
  generateBatch,
  type Prompt,
} from "./flag/generate.js";
export { FLAG_LOSS, type FlagBatch, type FlagLossOptions, redFlagLoss } from "./flag/loss.js";
export { flagMonitor } from "./flag/monitor.js";
export type { Placement } from "./flag/placement.js";
export { type Policy, parsePolicy } from "./flag/policy.js";
export { type FlagScore, FlagScorer, type Utility } from "./flag/score.js";
export { loadRedFlag, saveCalibration, saveRedFlag } from "./flag/store.js";
export {
  RED_FLAG_DEFAULTS,
  type RedFlagHyperparameters,
  type RedFlagRun,
  type RedFlagTraining,
  trainRedFlag,
} from "./flag/train.js";
export { addRedFlag, FlaggedModel, type RedFlagOptions, type RowInit } from "./flag/vocab.js";
export { clearModelCache } from "./formats/clear-model-cache.js";
export type { FilesInput } from "./formats/files.js";
export { type Example, readJsonLines } from "./formats/jsonl.js";
export { type LoadOptions, loadModel } from "./formats/load-model.js";
export type { DownloadProgress, FetchOptions, RemoteFiles } from "./formats/url-files.js";
export {
  type BatchStep,
  type DecodeBatchOptions,
  type DecodeOptions,
  decode,
  decodeBatch,
} from "./generate/decode.js";
export type { Monitor, Observation, Verdict } from "./generate/monitor.js";
export { PrefixCache } from "./generate/prefix-cache.js";
export { GREEDY, type SamplingOptions, sample } from "./generate/sample.js";
export type { DecodeStep, DrawOptions, FinishReason, Source } from "./generate/sequence.js";
export { type Kernel, kernel } from "./kernel.js";
export { LLAMA_BLOCKS, type ModelConfig } from "./model/config.js";
export type { LoadProgress } from "./model/fill-weights.js";
export { type ForwardOptions, forward, head } from "./model/forward.js";
export { type HeadInput, headCrossEntropy, headKl } from "./model/head-loss.js";
export { initialise } from "./model/init.js";
export { KVCache, type KVCacheOptions, type KVType } from "./model/kv-cache.js";
export { Model } from "./model/model.js";
export { add } from "./ops/add.js";
export { argmax } from "./ops/argmax.js";
export { type AttentionOptions, attention } from "./ops/attention.js";
export { columns } from "./ops/columns.js";
export { crossEntropy, type LossOptions } from "./ops/cross-entropy.js";
export { type DropoutOptions, dropout } from "./ops/dropout.js";
export { embedding } from "./ops/embedding.js";
export { gelu } from "./ops/gelu.js";
export { type KlDirection, type KlOptions, kl } from "./ops/kl.js";
export { type KVAppendOptions, type KVTensors, kvAppend } from "./ops/kv-append.js";
export { layernorm } from "./ops/layernorm.js";
export { linear, type MatmulOptions, matmul } from "./ops/matmul.js";
export { rmsnorm } from "./ops/rmsnorm.js";
export { type RopeOptions, rope } from "./ops/rope.js";
export { slice } from "./ops/slice.js";
export { softmax } from "./ops/softmax.js";
export { squaredNorm } from "./ops/squared-norm.js";
export { swiglu } from "./ops/swiglu.js";
export { swigluFused } from "./ops/swiglu-fused.js";
export { view } from "./ops/view.js";
export { Random } from "./random.js";
export { Tape } from "./tape.js";
export { Arena, Parameters, Tensor } from "./tensor.js";
export {
  applyChat,
  byteTokenizer,
  type ChatOptions,
  type ChatTemplate,
  type EncodeOptions,
  type Message,
  StreamDecoder,
  type Tokenizer,
} from "./tokenizer.js";
export type { BatchSource } from "./train/batches.js";
export { Checkpoint, type CheckpointOptions, hasCheckpoint, removeCheckpoint } from "./train/checkpoint.js";
export { digestOf, digestOfParameters, type Fact, type Fingerprint, factsOf } from "./train/fingerprint.js";
export { languageLoss } from "./train/language.js";
export { AdamW, type AdamWOptions } from "./train/optimiser.js";
export { learningRate, type Schedule } from "./train/schedule.js";
export {
  type Loss,
  type LossReport,
  type ReadLoss,
  type SyncLoss,
  type TrainOptions,
  type TrainStep,
  train,
  type Validation,
} from "./train/trainer.js";
