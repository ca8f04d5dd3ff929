import type { Command } from "commander";
import { type Decision, parseDecision } from "../flag/decision.js";
import {
  type CommonGenerateOptions,
  type GenerateResult,
  type GenerateStep,
  generate,
  generateBatch,
} from "../flag/generate.js";
import { type Policy, parsePolicy } from "../flag/policy.js";
import type { FlaggedModel } from "../flag/vocab.js";
import type { KVType } from "../model/kv-cache.js";
import type { Model } from "../model/model.js";
import type { Message } from "../tokenizer.js";
import { expectIds, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, idList, integer, kvOption, number, parsed } from "./options.js";
import { coloured, flagMark, jsonLine } from "./terminal.js";

interface GenerateCommandOptions extends ModelOptions {
  readonly prompt?: string[];
  readonly ids?: number[];
  readonly chat: boolean;
  readonly system?: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly decision?: Decision;
  readonly policy?: Policy;
  readonly ignoreEos: boolean;
  readonly kv: KVType;
}

/** `generate`: a continuation, with what the flag says of every token. */
export function generateCommand(root: Command): Command {
  return root
    .command("generate")
    .description("continue a prompt under the red flag")
    .requiredOption("--model <path>", "Hugging Face folder, .gguf or llama2.c .bin")
    .option("--adapter <folder>", "red flag of `train`")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .option(
      "--prompt <text>",
      "what to continue; a BOS is put first where the model has one; several run side by side",
      (text: string, before: string[] = []) => [...before, text],
    )
    .option("--ids <list>", "token ids to continue, taken as they are", idList)
    .option("--chat", "the prompt is a user's message: lay it out in the model's chat template", false)
    .option("--system <text>", "a system message before it; implies --chat")
    .option("--max-tokens <n>", "most new tokens", integer(0), 256)
    .option("--temperature <t>", "0 takes the likeliest token", number(0), 0)
    .option("--top-k <n>", "draw from this many of the likeliest; 0 for all", integer(0), 0)
    .option("--top-p <p>", "draw from the likeliest that reach this probability", number(1e-9, 1), 1)
    .option(
      "--decision <rule>",
      "sampled, argmax, threshold=LEVEL, cumulative=LEVEL, ema=DECAY,LEVEL (default: the calibrated, or threshold=0.5)",
      parsed(parseDecision),
    )
    .option(
      "--policy <rule>",
      "stop, annotate, annotate=shadow, replace=TEXT (default: stop)",
      parsed(parsePolicy),
    )
    .addOption(kvOption())
    .option("--ignore-eos", "go on at an end-of-sequence token", false)
    .action(run);
}

async function run(options: GenerateCommandOptions): Promise<void> {
  if ((options.prompt === undefined) === (options.ids === undefined)) {
    throw new RangeError("generate takes either --prompt or --ids");
  }
  const isChat = options.chat || options.system !== undefined;
  if (isChat && options.ids)
    throw new RangeError("--ids are taken as they are: leave --chat and --system out");
  await withModel(options, async ({ model, flagged }) => {
    if (options.ids) expectIds(options.ids, model, flagged);
    const settings: CommonGenerateOptions = {
      temperature: options.temperature,
      topK: options.topK,
      topP: options.topP,
      maxTokens: options.maxTokens,
      ignoreEos: options.ignoreEos,
      kvType: options.kv,
      ...(options.policy === undefined ? {} : { policy: options.policy }),
      ...(options.decision === undefined ? {} : { decision: options.decision }),
    };
    if (isChat && !model.tokenizer?.chat) throw new RangeError("--chat: the model has no chat template");
    const { seed = 0, prompt: texts = [], system } = options;
    const prompts = isChat ? texts.map((text) => messagesOf(text, system)) : texts;
    const target = flagged ?? model;
    if (prompts.length > 1) {
      const seeds = prompts.map((_, i) => seed + i);
      const shownTexts = prompts.map(() => "");
      for await (const { index, ...step } of generateBatch(target, prompts, { ...settings, seeds })) {
        if (options.json) jsonLine({ index, ...lineOf(step) });
        else shownTexts[index] += shown(step, model, flagged);
        // Whole, since the steps of all come in turn.
        if (step.done && !options.json) {
          process.stdout.write(`${index}: ${shownTexts[index]}\n`);
          process.stderr.write(`${index}: ${ending(step.done)}\n`);
        }
      }
      return;
    }
    for await (const step of generate(target, options.ids ?? prompts[0] ?? "", { ...settings, seed })) {
      if (options.json) {
        jsonLine(lineOf(step));
        continue;
      }
      process.stdout.write(shown(step, model, flagged));
      if (step.done) process.stderr.write(`\n${ending(step.done)}\n`);
    }
  });
}

function messagesOf(content: string, system: string | undefined): Message[] {
  const user = { role: "user", content };
  return system === undefined ? [user] : [{ role: "system", content: system }, user];
}

/** A step as a terminal shows it. */
function shown(step: GenerateStep, model: Model, flagged: FlaggedModel | undefined): string {
  if (step.done && step.event === "replace") return `\n${step.done.text}`;
  if (step.token !== null && flagged?.isFlag(step.token)) return flagMark();
  return coloured(model.tokenizer ? step.text : `${step.token ?? ""} `, step.flagProbability);
}

function ending({ reason, flagged }: GenerateResult): string {
  return `[${reason}${flagged ? ", flag raised" : ""}]`;
}

/** A step as `--json` prints it. */
function lineOf(step: GenerateStep): object {
  return step.done ? { done: true, ...step.done } : tokenLine(step);
}

function tokenLine({ token, text, flagProbability, logprob, flagCategory }: GenerateStep): object {
  const category = flagCategory === undefined ? {} : { flag_category: flagCategory };
  return { id: token, text, flag: flagProbability, ...category, logprob };
}
