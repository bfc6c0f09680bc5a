/**
 * Jobs of BullMQ have the context of who asked for them.
 *
 * The context travels in two options of the job, which BullMQ keeps, and is the job's in the worker.
 */
import { hostname } from "node:os";

import type { FlowJob, FlowProducer, Job, JobsOptions, Queue } from "bullmq";

import { runWith, withContext } from "./context/current.js";
import { checkOptions, customisedLater, type LaterContext } from "./context/request.js";
import { jobContext, jobHeaders } from "./context/tracing.js";

/**
 * Makes jobs that a queue, or a producer of flows, adds take the current context along.
 *
 * ```ts
 * const queue = install(new Queue("mail"));
 * ```
 *
 * A job scheduler's jobs, which nobody asks for, have none.
 *
 * @returns what it was given
 * @throws TypeError where that is neither
 */
export function install<Producer extends Queue | FlowProducer>(producer: Producer): Producer {
  const each = producer as unknown as Queue & FlowProducer;
  if (typeof each.add !== "function" || typeof each.addBulk !== "function") {
    throw new TypeError("install takes a Queue or a FlowProducer of BullMQ");
  }
  if (installed.has(producer)) return producer;
  installed.add(producer);
  return "upsertJobScheduler" in producer ? queue(producer as Queue, producer) : flows(producer);
}

const installed = new WeakSet<object>();

function queue<Producer>(into: Queue, producer: Producer): Producer {
  const add = into.add.bind(into);
  const addBulk = into.addBulk.bind(into);
  into.add = (name, data, options) => add(name, data, carrying(options));
  into.addBulk = (jobs) => addBulk(jobs.map((job) => ({ ...job, opts: carrying(job.opts) })));
  return producer;
}

function flows<Producer>(producer: Producer): Producer {
  const into = producer as FlowProducer;
  const add = into.add.bind(into);
  const addBulk = into.addBulk.bind(into);
  into.add = (flow, options) => add(carried(flow), options);
  into.addBulk = (all) => addBulk(all.map(carried));
  return producer;
}

function carried(flow: FlowJob): FlowJob {
  const opts = carrying(flow.opts);
  return flow.children === undefined
    ? { ...flow, opts }
    : { ...flow, opts, children: flow.children.map(carried) };
}

/** Options that it does not know BullMQ stores with the job, as they are. */
function carrying<Options extends JobsOptions>(options: Options | undefined): Options {
  return { ...jobHeaders(), ...options } as Options;
}

/** What a worker calls for each job. */
export type Processor<Arguments extends [job: Job, ...more: never[]], Result> = (
  ...job: Arguments
) => Promise<Result>;

/** Options of `withJobContext`. */
export interface JobOptions<Arguments extends readonly unknown[]> {
  /** Is given what the processor is, and returns more values, which win; it may be async. */
  context?: LaterContext<Arguments>;
}

/**
 * A worker's processor that runs in the context of who asked for the job, with `job`, the job's
 * name, and `worker`, the worker's name or its machine's, laid over.
 *
 * ```ts
 * new Worker("mail", withJobContext(async (job) => { … }), { connection });
 * ```
 *
 * @throws TypeError where it is not given a function
 */
export function withJobContext<Arguments extends [job: Job, ...more: never[]], Result>(
  process: Processor<Arguments, Result>,
  options: JobOptions<Arguments> = {},
): Processor<Arguments, Result> {
  if (typeof process !== "function") {
    throw new TypeError("withJobContext takes a processor's function; files have theirs inside");
  }
  checkOptions(options, { later: true });
  return async (...given) => {
    const [job] = given;
    const values = jobContext(job.opts as Record<string, unknown>, {
      job: job.name,
      worker: job.processedBy ?? hostname(),
    });
    const more = await customisedLater(options.context, ...given);
    // Not over what was current where the worker was made.
    return runWith({}, () => withContext({ ...values, ...more }, () => process(...given)));
  };
}
