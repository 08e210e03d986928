// Loaded by a process before its program. Registers providers of OpenTelemetry that keep what they are given, and prints it
// when the process ends.
import { randomBytes } from 'node:crypto';
import {
  type Attributes,
  type Context,
  context,
  createNoopMeter,
  metrics,
  type Span,
  type SpanOptions,
  type SpanStatus,
  type TimeInput,
  type Tracer,
  trace,
} from '@opentelemetry/api';

/** A span that has ended. Members without a value are missing. */
export interface RecordedSpan {
  readonly name: string;
  readonly spanId: string;
  readonly traceId: string;
  readonly parentSpanId?: string;
  readonly startTime?: TimeInput;
  readonly endTime?: TimeInput;
  readonly attributes: Attributes;
  readonly status?: SpanStatus;
}

export interface RecordedValue {
  readonly metric: string;
  readonly unit?: string;
  readonly value: number;
  readonly attributes: Attributes;
}

export interface Telemetry {
  readonly spans: readonly RecordedSpan[];
  readonly values: readonly RecordedValue[];
}

/** The beginning of the line on stdout. */
export const TELEMETRY = 'TELEMETRY ';

const spans: RecordedSpan[] = [];
const values: RecordedValue[] = [];

function startSpan(name: string, { startTime, attributes = {} }: SpanOptions = {}, parent?: Context): Span {
  const above = trace.getSpanContext(parent ?? context.active());
  const traceId = above?.traceId ?? randomBytes(16).toString('hex');
  const spanId = randomBytes(8).toString('hex');
  let status: SpanStatus | undefined;
  return Object.assign(trace.wrapSpanContext({ traceId, spanId, traceFlags: 1 }), {
    setStatus(this: Span, given: SpanStatus) {
      status = given;
      return this;
    },
    end(endTime?: TimeInput) {
      const ids = { spanId, traceId, ...(above && { parentSpanId: above.spanId }) };
      const times = { ...(startTime && { startTime }), ...(endTime && { endTime }) };
      spans.push({ name, ...ids, ...times, attributes, ...(status && { status }) });
    },
  });
}

trace.setGlobalTracerProvider({ getTracer: () => ({ startSpan }) as Pick<Tracer, 'startSpan'> as Tracer });
metrics.setGlobalMeterProvider({
  getMeter: () =>
    Object.assign(createNoopMeter(), {
      createHistogram: (metric: string, { unit }: { readonly unit?: string } = {}) => ({
        record(value: number, attributes: Attributes = {}) {
          values.push({ metric, ...(unit !== undefined && { unit }), value, attributes });
        },
      }),
    }),
});
process.on('exit', () => {
  console.log(TELEMETRY + JSON.stringify({ spans, values } satisfies Telemetry));
});
