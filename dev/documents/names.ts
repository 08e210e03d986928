import { MODELLED_SCHEMA } from '../../src/catalog/model.ts';

/** `backend_mounts` → `BackendMount`, `view_filestore_active_nodes` → `ActiveNode`. */
export function relationName(name: string): string {
  const bare = name.replace(new RegExp(`^view_${MODELLED_SCHEMA}_`), '');
  return pascalCase(singular(bare));
}

/** `node_kind` → `NodeKind`. */
export function domainName(name: string): string {
  return pascalCase(name);
}

/** `begin_command` → `BeginCommand`. */
export function routineName(name: string): string {
  return pascalCase(name);
}

/** `begin_command` → `beginCommand`, `parent_id` → `parentId`: functions and their arguments. */
export function camelCase(name: string): string {
  const pascal = pascalCase(name);
  return `${pascal.charAt(0).toLowerCase()}${pascal.slice(1)}`;
}

function pascalCase(name: string): string {
  return name
    .split(/[^A-Za-z0-9]+/)
    .map((word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`)
    .join('');
}

function singular(name: string): string {
  if (name.endsWith('ies')) return `${name.slice(0, -3)}y`;
  if (/(?:ss|sh|ch|x)es$/.test(name)) return name.slice(0, -2);
  return /[^su]s$/.test(name) ? name.slice(0, -1) : name;
}
