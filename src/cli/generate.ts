import type { Command } from "commander";
import { type Decision, parseDecision } from "../flag/decision.js";
import { type GenerateOptions, type GenerateStep, generate } from "../flag/generate.js";
import { type Policy, parsePolicy } from "../flag/policy.js";
import type { Message } from "../tokenizer.js";
import { expectIds, type ModelOptions, withModel } from "./load.js";
import { dtypeOption, idList, integer, number, parsed } from "./options.js";
import { coloured, flagMark, jsonLine } from "./terminal.js";

interface GenerateCommandOptions extends ModelOptions {
  readonly prompt?: string;
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
}

/** `generate`: a continuation, with what the flag says of every token. */
export function generateCommand(root: Command): Command {
  return root
    .command("generate")
    .description("continue a prompt under the red flag")
    .requiredOption("--model <path>", "Hugging Face folder or llama2.c .bin")
    .option("--adapter <folder>", "red flag of `train`")
    .option("--tokenizer <file>", "tokenizer of a llama2.c model")
    .addOption(dtypeOption())
    .option("--prompt <text>", "what to continue; a BOS is put first where the model has one")
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
    const settings: GenerateOptions = {
      temperature: options.temperature,
      topK: options.topK,
      topP: options.topP,
      maxTokens: options.maxTokens,
      ignoreEos: options.ignoreEos,
      ...(options.seed === undefined ? {} : { seed: options.seed }),
      ...(options.policy === undefined ? {} : { policy: options.policy }),
      ...(options.decision === undefined ? {} : { decision: options.decision }),
    };
    if (isChat && !model.tokenizer?.chat) throw new RangeError("--chat: the model has no chat template");
    const { prompt: text = "", system } = options;
    const prompt = isChat ? messagesOf(text, system) : text;
    for await (const step of generate(flagged ?? model, options.ids ?? prompt, settings)) {
      if (options.json) {
        if (step.done) jsonLine({ done: true, ...step.done });
        else jsonLine(tokenLine(step));
        continue;
      }
      if (step.done && step.event === "replace") process.stdout.write(`\n${step.done.text}`);
      else if (step.token !== null && flagged?.isFlag(step.token)) process.stdout.write(flagMark());
      else
        process.stdout.write(
          coloured(model.tokenizer ? step.text : `${step.token ?? ""} `, step.flagProbability),
        );
      if (step.done)
        process.stderr.write(`\n[${step.done.reason}${step.done.flagged ? ", flag raised" : ""}]\n`);
    }
  });
}

function messagesOf(content: string, system: string | undefined): Message[] {
  const user = { role: "user", content };
  return system === undefined ? [user] : [{ role: "system", content: system }, user];
}

/** A step as `--json` prints it. */
function tokenLine({ token, text, flagProbability, logprob, flagCategory }: GenerateStep): object {
  const category = flagCategory === undefined ? {} : { flag_category: flagCategory };
  return { id: token, text, flag: flagProbability, ...category, logprob };
}
