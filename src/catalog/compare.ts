import { paragraph, printable } from '../text.ts';
import {
  type CatalogModel,
  type CatalogObject,
  describeObject,
  type LiveCatalog,
  type ObjectKind,
  objectKey,
} from './model.ts';

/** One object that differs. {@link describeDifference} renders it as a line. */
export type CatalogDifference = {
  readonly object: CatalogObject;
  /** The table or other object that it belongs to; null for an object of the schema itself. */
  readonly owner: CatalogObject | null;
} & (
  | { readonly change: 'missing'; readonly expected: string }
  | { readonly change: 'extra'; readonly actual: string }
  | { readonly change: 'changed'; readonly expected: string; readonly actual: string }
);

export interface CatalogComparison {
  /** Empty if nothing differs. Parts of a missing or extra object are not listed separately. */
  readonly differences: readonly CatalogDifference[];
  /** What could not be compared, and why, one line each. */
  readonly notes: readonly string[];
}

/** The first version that prints a view of one relation without qualifiers, as in the model. */
const FIRST_WITHOUT_QUALIFIERS = 16;
const VIEWS: readonly ObjectKind[] = ['view', 'materialized view'];
const LONGEST_EXCERPT = 160;

/** Compares the expected schema with the actual one. The order of columns does not count. */
export function compareModels(expected: CatalogModel, actual: LiveCatalog): CatalogComparison {
  const [schema] = expected.objects.filter(({ kind }) => kind === 'schema');
  if (schema !== undefined && actual.objects.length === 0) {
    return {
      differences: [{ change: 'missing', object: schema, owner: null, expected: schema.definition }],
      notes: [],
    };
  }
  const notes: string[] = [];
  const isSame = (should: CatalogObject, is: CatalogObject): boolean => {
    if (should.definition === is.definition) return true;
    if (!VIEWS.includes(should.kind) || actual.serverMajor >= FIRST_WITHOUT_QUALIFIERS) return false;
    if (withoutQualifiers(should.definition) !== withoutQualifiers(is.definition)) return false;
    notes.push(
      paragraph(
        `${describeObject(should, null)} was compared without the qualifiers of its columns,`,
        `which PostgreSQL ${actual.serverMajor} prints differently`,
      ),
    );
    return true;
  };
  return { differences: compareObjects(expected.objects, actual.objects, null, isSame), notes };
}

/** The difference as one line, such as `column filestore.nodes.path is missing: text not null`. */
export function describeDifference(difference: CatalogDifference): string {
  return printable(describeChange(difference));
}

function describeChange(difference: CatalogDifference): string {
  const subject = describeObject(difference.object, difference.owner);
  switch (difference.change) {
    case 'missing':
      return line(`${subject} is missing`, difference.expected);
    case 'extra':
      return line(`${subject} is not in the model`, difference.actual);
    case 'changed': {
      const [is, should] = excerpts(difference.actual, difference.expected);
      return `${subject} is changed: has ${is}, should have ${should}`;
    }
  }
}

function compareObjects(
  expected: readonly CatalogObject[],
  actual: readonly CatalogObject[],
  owner: CatalogObject | null,
  isSame: (should: CatalogObject, is: CatalogObject) => boolean,
): readonly CatalogDifference[] {
  const found = new Map(actual.map((object) => [objectKey(object), object]));
  const wanted = new Set(expected.map(objectKey));
  return [
    ...expected.flatMap((should): readonly CatalogDifference[] => {
      const is = found.get(objectKey(should));
      if (is === undefined) {
        return [{ change: 'missing', object: should, owner, expected: should.definition }];
      }
      const own: readonly CatalogDifference[] = isSame(should, is)
        ? []
        : [{ change: 'changed', object: should, owner, expected: should.definition, actual: is.definition }];
      return [...own, ...compareObjects(should.parts, is.parts, should, isSame)];
    }),
    ...actual
      .filter((object) => !wanted.has(objectKey(object)))
      .map((object): CatalogDifference => ({ change: 'extra', object, owner, actual: object.definition })),
  ];
}

/** Up to version 15, the server prints `nodes.id`, and later `id`. String literals stay unchanged. */
function withoutQualifiers(definition: string): string {
  return definition.replace(
    /('(?:[^']|'')*')|(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_$]*)\.(?=["a-z_])/g,
    (_match, literal?: string) => literal ?? '',
  );
}

function line(statement: string, definition: string): string {
  const [excerpt] = excerpts(definition, definition);
  return definition === '' ? statement : `${statement}: ${excerpt}`;
}

/** The difference of two definitions: the lines of each that the other lacks, cut to the differing part. */
function excerpts(a: string, b: string): readonly [string, string] {
  const [onlyA, onlyB] = [linesBeyond(a, b), linesBeyond(b, a)];
  let common = 0;
  while (common < onlyA.length && onlyA[common] === onlyB[common]) common += 1;
  // Some common text shows where the difference is.
  const start = onlyA === onlyB ? 0 : Math.max(0, common - LONGEST_EXCERPT / 2);
  return [cut(onlyA, start), cut(onlyB, start)];
}

function linesBeyond(text: string, other: string): string {
  const known = new Set(other.split('\n'));
  const own = text.split('\n').filter((part) => text === other || !known.has(part));
  return own.join(' ').replace(/\s+/g, ' ').trim();
}

function cut(text: string, start: number): string {
  const end = start + LONGEST_EXCERPT;
  const shown = `${start > 0 ? '…' : ''}${text.slice(start, end)}${end < text.length ? '…' : ''}`;
  return shown === '' ? 'nothing' : shown;
}
