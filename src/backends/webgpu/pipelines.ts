import { BackendError } from "../../errors.js";
import type { Kernel } from "../../kernel.js";

/** `GPUShaderStage.COMPUTE`; Node has no such global. */
const COMPUTE = 4;

type AnyKernel = Kernel<string, string, string, string>;

/** Compiles kernels when they are first used, or ahead, and keeps them. */
export class Pipelines {
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #layouts = new Map<number, GPUBindGroupLayout>();
  readonly #errors = new Map<string, BackendError>();
  #checks: Promise<BackendError | undefined>[] = [];

  /** @param sources WGSL by kernel name */
  constructor(
    readonly device: GPUDevice,
    readonly sources: Readonly<Record<string, string>>,
  ) {}

  /**
   * The layout of `count` operands and the parameters, which every kernel of so many operands shares; so a bind
   * group serves them all.
   */
  layout(count: number): GPUBindGroupLayout {
    let layout = this.#layouts.get(count);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [];
      for (let binding = 0; binding < count; binding++) {
        entries.push({ binding, visibility: COMPUTE, buffer: { type: "storage" } });
      }
      entries.push({
        binding: count,
        visibility: COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true },
      });
      layout = this.device.createBindGroupLayout({ entries });
      this.#layouts.set(count, layout);
    }
    return layout;
  }

  /**
   * The kernel's pipeline. A shader that does not compile is found out later: see `settle`.
   * @throws BackendError where there is no such shader, or it is known not to compile
   */
  get(kernel: AnyKernel): GPUComputePipeline {
    const known = this.#errors.get(kernel.name);
    if (known) throw known;
    let pipeline = this.#pipelines.get(kernel.name);
    if (!pipeline) {
      this.device.pushErrorScope("validation");
      const descriptor = this.#descriptor(kernel);
      pipeline = this.device.createComputePipeline(descriptor);
      this.#checks.push(this.#check(kernel.name, descriptor.compute.module, this.device.popErrorScope()));
      this.#pipelines.set(kernel.name, pipeline);
    }
    return pipeline;
  }

  /**
   * Compiles kernels side by side, ahead of their use.
   * @throws BackendError that names the file, the line and the message of a shader that does not compile
   */
  async prepare(kernels: readonly AnyKernel[]): Promise<void> {
    const missing = kernels.filter((kernel) => !this.#pipelines.has(kernel.name));
    await Promise.all(
      missing.map(async (kernel) => {
        this.device.pushErrorScope("validation");
        const descriptor = this.#descriptor(kernel);
        const scope = this.device.popErrorScope();
        try {
          this.#pipelines.set(kernel.name, await this.device.createComputePipelineAsync(descriptor));
          await scope;
        } catch (cause) {
          const error = await this.#check(kernel.name, descriptor.compute.module, scope);
          throw error ?? new BackendError(`kernels/${kernel.name}.wgsl: ${firstLine(cause)}`, { cause });
        }
      }),
    );
  }

  /** Waits for the compiler; the error of the first shader since the last time that does not compile. */
  async settle(): Promise<BackendError | undefined> {
    if (this.#checks.length === 0) return undefined;
    const checks = this.#checks;
    this.#checks = [];
    return (await Promise.all(checks)).find((error) => error !== undefined);
  }

  #descriptor(kernel: AnyKernel): GPUComputePipelineDescriptor {
    const code = this.sources[kernel.name];
    if (code === undefined) throw new BackendError(`webgpu: no kernel is named '${kernel.name}'`);
    const count = kernel.writes.length + kernel.reads.length;
    const layout = this.device.createPipelineLayout({ bindGroupLayouts: [this.layout(count)] });
    const module = this.device.createShaderModule({ code, label: kernel.name });
    return { label: kernel.name, layout, compute: { module, entryPoint: "main" } };
  }

  /** What the compiler has to say, by line; else what the device says of the pipeline. */
  async #check(
    name: string,
    module: GPUShaderModule,
    scope: Promise<GPUError | null>,
  ): Promise<BackendError | undefined> {
    try {
      const [info, error] = await Promise.all([module.getCompilationInfo(), scope]);
      const message = info.messages.find(({ type }) => type === "error");
      if (!message && !error) return undefined;
      const where = message ? `:${message.lineNum}:${message.linePos}` : "";
      const problem = new BackendError(`kernels/${name}.wgsl${where}: ${(message ?? error)?.message}`);
      this.#errors.set(name, problem);
      return problem;
    } catch {
      // The device is gone, which `read` and `synchronize` say better.
    }
    return undefined;
  }
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n", 1)[0] ?? "";
}
