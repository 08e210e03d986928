import { readAccess } from '../../../dev/documents/access.ts';
import { describeSchema } from '../../../dev/documents/describe-schema.ts';
import { renderRowTypes } from '../../../dev/documents/render-row-types.ts';
import type { TestDatabase } from './test-database.ts';

/** The generated types of a database's schema, as text. */
export async function typesOf(database: () => TestDatabase): Promise<string> {
  const client = await database().connect();
  return renderRowTypes(await describeSchema(client), await readAccess(client));
}

/** Fields of an interface and their types. */
export function fieldsOf(types: string, name: string): Readonly<Record<string, string>> {
  const alias = new RegExp(`^export type ${name} = (\\w+);$`, 'm').exec(types)?.[1];
  if (alias !== undefined) return fieldsOf(types, alias);
  const except = new RegExp(`^export type ${name} = Omit<(\\w+), .*> & \\{ (\\w+): (.*) \\};$`, 'm').exec(
    types,
  );
  if (except !== null) {
    const [, table = '', field = '', type = ''] = except;
    return { ...fieldsOf(types, table), [field]: type };
  }
  const body = new RegExp(`^export interface ${name} \\{\\n([\\s\\S]*?)^\\}`, 'm').exec(types)?.[1];
  if (body === undefined) throw new Error(`the interface ${name} does not exist`);
  return Object.fromEntries(
    [...body.matchAll(/^ {2}(\w+)\??: (.*);$/gm)].map(([, field = '', type = '']) => [field, type]),
  );
}
