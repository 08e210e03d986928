import { MODELLED_SCHEMA } from '../../../src/catalog/model.ts';
import { concurrentIndexOf } from '../../../src/graphile/concurrent-index-text.ts';
import { describeSchema } from '../../documents/describe-schema.ts';
import type { SchemaDescription } from '../../documents/description.ts';
import { sourceOfColumn } from '../../documents/view-columns.ts';
import { migrationsOf, type Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

interface Commented {
  readonly kind: string;
  /** As in `comment on`, after the kind. */
  readonly subject: string;
  readonly names: readonly string[];
  readonly comment: string | null;
}

/** A comment line for people, not an instruction for graphile-migrate. */
const PURPOSE = /^--(?!!)[ \t]*\S/m;

/** Needs a database with all migrations applied. */
export const comments: Gate<DatabaseSubject> = {
  name: 'comments',
  proves: 'every object of the schema has a comment',
  async evaluate({ sources, client }) {
    const objects = objectsOf(await describeSchema(client));
    return judge(
      objects
        .filter((object) => !object.comment?.trim() && !isExplainedIndex(object, sources))
        .map(({ kind, subject, names }) => ({
          ...locate(sources, kind, ...names),
          what: `${kind} ${subject} has no comment`,
          remedy: `Write its purpose, which also appears in the data dictionary: comment on ${kind} ${subject} is '…'; For an index that is built concurrently, an SQL comment above the statement is enough.`,
        })),
    );
  },
};

/** Without constraints, whose definition usually says everything, and their indexes. */
function objectsOf({
  comment,
  domains,
  types,
  relations,
  routines,
}: SchemaDescription): readonly Commented[] {
  type Described = { readonly name: string; readonly comment: string | null };
  const own = (kind: string, object: Described): Commented => ({
    ...{ kind, subject: `${MODELLED_SCHEMA}.${object.name}`, names: [object.name], comment: object.comment },
  });
  return [
    { kind: 'schema', subject: MODELLED_SCHEMA, names: [MODELLED_SCHEMA], comment },
    ...domains.map((domain) => own('domain', domain)),
    ...types.map((type) => own('type', type)),
    ...relations.flatMap((relation) => {
      const table = `${MODELLED_SCHEMA}.${relation.name}`;
      return [
        own(relation.kind, relation),
        ...relation.columns
          // The data dictionary shows the comment of the source column.
          .filter((column) => sourceOfColumn(relation, column, relations) === undefined)
          .map((column) => ({
            ...own('column', column),
            subject: `${table}.${column.name}`,
            names: [relation.name, column.name],
          })),
        ...relation.indexes.map((index) => own('index', index)),
        ...relation.triggers.map((trigger) => ({
          ...own('trigger', trigger),
          subject: `${trigger.name} on ${table}`,
        })),
      ];
    }),
    ...routines.map((routine) => own(routine.kind, routine)),
  ];
}

/** The migration of an index that is built concurrently has no other statement. */
function isExplainedIndex({ kind, names: [name] }: Commented, sources: Sources): boolean {
  return (
    kind === 'index' &&
    migrationsOf(sources).some(
      ({ text, transaction }) =>
        concurrentIndexOf({ body: text, transaction })?.index === name && PURPOSE.test(text),
    )
  );
}
