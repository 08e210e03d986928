import {
  type ArrayClient,
  AS_TEXT,
  type Example,
  ExampleValues,
  examplesOf,
} from '../support/packages/examples.ts';
import type { Queries, Session } from './service-sessions.ts';

const DOCUMENT = 'docs/service.md';
/** The flow of an operator. */
const PRUNE = 'Prune';
/** Their rows depend on what other services do at the same time. */
const UNCHECKED: ReadonlySet<string> = new Set(['Poll', 'Keep it tidy', PRUNE]);

/** Values of the document that differ for each service, by names like its other ones. */
const REPLACED: readonly (readonly [text: string, name: string])[] = [
  ["'media'", 'mount_key'],
  ["'/srv/media'", 'place'],
  ["'request-1'", 'request'],
  [`'{"rating": 5}'`, 'rating'],
  ["'n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg='", 'checksum'],
  ["'9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'", 'checksum'],
];
/** Types of parameters. All others are ids. */
const TYPES: Readonly<Record<string, string>> = {
  mount_key: 'text',
  place: 'text',
  request: 'text',
  rating: 'jsonb',
  checksum: 'text',
  last_cursor: 'text',
  pass: 'timestamptz',
};

/** Statements that return all columns, which services write although they should name them. */
const WHOLE_ROWS: readonly string[] = [
  'select * from filestore.nodes where id = :file',
  'select * from filestore.view_filestore_active_nodes where backend_mount_id = :mount limit 5',
  "select * from filestore.node_by_path(:mount_key, 'photos')",
  'begin;',
  'select * from filestore.list_directory(:directory)',
  `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
   values (:mount, :directory, 'whole', 'file') returning *`,
  'commit;',
];

interface Step extends Example {
  readonly name: string | undefined;
}

/** The flows of a package's docs/service.md, in their order. */
export interface DocumentedFlows {
  /** Runs all flows of a service on a new mount. Throws if a statement returns other rows than the document has. */
  serve(session: Session, mountKey: string): Promise<void>;
  /** Runs the flow of an operator. */
  prune(client: Queries): Promise<void>;
}

export interface FlowOptions {
  /** The folder of the package. */
  readonly folder: string;
  /** Whether the statements are prepared, with a name for each. */
  readonly named: boolean;
}

export function documentedFlows({ folder, named }: FlowOptions): DocumentedFlows {
  const whole = WHOLE_ROWS.map((statement) => ({ section: 'Whole rows', statement, expected: undefined }));
  const steps = [...examplesOf(DOCUMENT, folder), ...whole].map((example, index) => ({
    ...example,
    statement: REPLACED.reduce(
      (text, [value, name]) => text.replaceAll(value, `:${name}`),
      example.statement,
    ),
    name: named ? `${DOCUMENT} ${index}` : undefined,
  }));
  const served = partsOf(steps.filter(({ section }) => section !== PRUNE));
  const pruned = steps.filter(({ section }) => section === PRUNE);
  return {
    async serve(session, mountKey) {
      const number = mountKey.replaceAll(/\D/g, '');
      let values = new ExampleValues([
        ['mount_key', mountKey],
        ['place', `/srv/${mountKey}`],
        ['request', `request-${mountKey}`],
        ['rating', `{"rating": ${number}}`],
        ['checksum', `sha256:${number.padStart(64, '0')}`],
      ]);
      for (const part of served) {
        if (part.kind === 'single') await runStep(session.single, part.step, values);
        else {
          values = await session.transact(async (client) => {
            const own = values.copy();
            for (const step of part.steps) await runStep(client, step, own);
            return own;
          });
        }
      }
    },
    async prune(client) {
      for (const step of pruned) await runStep(client, step, new ExampleValues());
    },
  };
}

type Part =
  | { readonly kind: 'single'; readonly step: Step }
  | { readonly kind: 'transaction'; readonly steps: Step[] };

/** Groups the statements between begin and commit. */
function partsOf(steps: readonly Step[]): readonly Part[] {
  const parts: Part[] = [];
  let open: Step[] | undefined;
  for (const step of steps) {
    if (step.statement === 'begin;') {
      open = [];
      parts.push({ kind: 'transaction', steps: open });
    } else if (step.statement === 'commit;') open = undefined;
    else if (open === undefined) parts.push({ kind: 'single', step });
    else open.push(step);
  }
  return parts;
}

async function runStep(client: Queries, step: Step, values: ExampleValues): Promise<void> {
  const rows = await rowsOf(client, step, values);
  const { section, statement, expected } = step;
  if (expected === undefined || UNCHECKED.has(section)) return;
  const key = values.bind(':mount_key', String);
  const rating = values.bind(':rating', String);
  const shown = expected.map((row) => row.replaceAll(/\bmedia\b/g, key).replaceAll('{"rating": 5}', rating));
  const wanted = shown.map((row, position) => values.learn(rows[position] ?? '', row));
  if (rows.join('\n') === wanted.join('\n')) return;
  throw new Error(
    `"${section}" of ${DOCUMENT} for ${key}: ${statement}\nreturned:\n${rows.join('\n')}\nand not:\n${wanted.join('\n')}`,
  );
}

async function rowsOf(client: Queries, step: Step, values: ExampleValues): Promise<readonly string[]> {
  const parameters: string[] = [];
  const text = values.bind(step.statement, (value, name) => {
    parameters.push(value);
    return `$${parameters.length}::${TYPES[name] ?? 'bigint'}`;
  });
  const name = step.name === undefined ? {} : { name: step.name };
  try {
    const { rows } = await (client as ArrayClient).query({
      text,
      values: parameters,
      rowMode: 'array',
      types: AS_TEXT,
      ...name,
    });
    return rows.map((row) => row.join(' | ').trimEnd());
  } catch (error) {
    const { code, message } = error as { readonly code?: string; readonly message: string };
    if (!step.expected?.[0]?.startsWith(`ERROR ${code}`)) throw error;
    return [`ERROR ${code}: ${message}`];
  }
}
