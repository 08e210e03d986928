import type { Acknowledged } from '../support/rows/file-writer.ts';
import type { FilledMount } from '../support/rows/fill-mount.ts';
import type { ClassRecord } from './statement-record.ts';

/** What the parent process tells a service. */
export type ServiceCommand =
  | {
      readonly type: 'start';
      /** The folder of the installed package. */
      readonly folder: string;
      readonly serviceUrl: string;
      readonly operatorUrl: string;
      /** A mount with a directory for each writer. */
      readonly mount: FilledMount;
      /** Services at the same time have different numbers. */
      readonly number: number;
    }
  | { readonly type: 'stop' };

/** What a service tells its parent process. */
export type ServiceMessage =
  | {
      readonly type: 'progress';
      /** How often each worker has ended its flows. */
      readonly turns: readonly number[];
      readonly faults: number;
    }
  | { readonly type: 'end'; readonly report: ServiceReport };

export interface ServiceReport {
  readonly classes: Readonly<Record<string, ClassRecord>>;
  /** What a service must not see. */
  readonly faults: readonly string[];
  /** Mounts on which all flows ended. Those of one group have the same content. */
  readonly served: readonly ServedMount[];
  readonly writers: readonly Acknowledged[];
}

export interface ServedMount {
  readonly group: string;
  readonly key: string;
}
