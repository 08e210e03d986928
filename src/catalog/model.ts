/** The schema of the model. Names in a model are relative to it. */
export const MODELLED_SCHEMA = 'filestore';

/** Objects of the schema itself. */
export type TopLevelKind =
  | 'schema'
  | 'domain'
  | 'type'
  | 'sequence'
  | 'table'
  | 'view'
  | 'materialized view'
  | 'function'
  | 'procedure'
  | 'aggregate';

/** Parts of such an object. */
export type PartKind =
  | 'column'
  | 'constraint'
  | 'index'
  | 'statistics'
  | 'trigger'
  | 'rule'
  | 'policy'
  | 'privilege';

export type ObjectKind = TopLevelKind | PartKind;

/** Every kind, in the order in which a model lists them. */
export const OBJECT_KINDS: readonly ObjectKind[] = [
  ...(['schema', 'domain', 'type', 'sequence', 'table', 'view', 'materialized view'] as const),
  ...(['function', 'procedure', 'aggregate'] as const),
  ...(['column', 'constraint', 'index', 'statistics', 'trigger', 'rule', 'policy', 'privilege'] as const),
];

/** An object of the catalog. Kind and name together are unique among its neighbours. */
export interface CatalogObject {
  readonly kind: ObjectKind;
  /** As in SQL, quoted if needed, without the schema; a function's with its argument types. */
  readonly name: string;
  /** The rest of its definition, as the server prints it. May have several lines. */
  readonly definition: string;
  /** Its parts: columns in their physical order, then the others by kind and name. */
  readonly parts: readonly CatalogObject[];
}

/** The key of an object among its neighbours. */
export function objectKey({ kind, name }: Pick<CatalogObject, 'kind' | 'name'>): string {
  return `${kind} ${name}`;
}

/** Everything in the schema except comments, owners, and privileges of named roles: operators choose them. */
export interface CatalogModel {
  /** By kind and name. Empty when there is no such schema. */
  readonly objects: readonly CatalogObject[];
}

/** A model that was read from a server. */
export interface LiveCatalog extends CatalogModel {
  /** Major version of the server, such as 18. */
  readonly serverMajor: number;
}

/**
 * The name of an object in messages: `column filestore.nodes.path`, `privilege EXECUTE of function
 * filestore.f(bigint)`.
 */
export function describeObject(object: CatalogObject, owner: CatalogObject | null): string {
  const { kind, name } = object;
  if (owner === null) return kind === 'schema' ? `schema ${name}` : `${kind} ${MODELLED_SCHEMA}.${name}`;
  if (kind === 'privilege') return `${kind} ${name} of ${describeObject(owner, null)}`;
  // The name of an index is in the schema's namespace; other parts are in that of their owner.
  if (kind === 'index') return `${kind} ${MODELLED_SCHEMA}.${name}`;
  return `${kind} ${MODELLED_SCHEMA}.${owner.name}.${name}`;
}
