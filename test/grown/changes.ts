import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A change of the schema, in one migration or in several that belong together. */
export interface Change {
  readonly title: string;
  readonly migrations: readonly Migration[];
}

export interface Migration {
  readonly message: string;
  /** Changes the fixtures of a checkout, and returns the SQL for current.sql. */
  write(folder: string): string;
}

export interface ChangeOptions {
  /** Whether `nodes` gets a column. */
  readonly nodeColumn: boolean;
}

export function changesOf({ nodeColumn }: ChangeOptions): readonly Change[] {
  return [
    { title: "the README's example", migrations: [{ message: 'Owner hints', write: exampleOfReadme }] },
    {
      title: nodeColumn
        ? 'a column of nodes, a function, an index, and a column of a view'
        : 'a function, an index, and a column of a view',
      migrations: [
        { message: 'Encryption of content', write: (folder) => encryption(folder, nodeColumn) },
        { message: 'Index of encryption', write: () => index(nodeColumn) },
        { message: 'State of the mount of a directory', write: (folder) => stateOfMount(folder, nodeColumn) },
      ],
    },
    {
      title: 'a table, and a value of an enumeration',
      migrations: [
        { message: 'Contacts of mounts', write: () => CONTACTS },
        { message: 'Mounts that are drained', write: () => DRAINING },
        { message: 'Mounts that are drained, validated', write: () => DRAINING_VALIDATED },
      ],
    },
  ];
}

function exampleOfReadme(folder: string): string {
  const readme = readFileSync(join(folder, 'README.md'), 'utf8');
  const [, indent = '', text] = /^( *)```sql\n([\s\S]*?)^\1```$/m.exec(readme) ?? [];
  if (text === undefined) throw new Error('README.md has no migration as an example: no block of SQL.');
  return text.replaceAll(new RegExp(`^${indent}`, 'gm'), '');
}

/** Two views have all columns of nodes, so they only need to be recreated. */
function encryption(folder: string, nodeColumn: boolean): string {
  writeFileSync(
    join(folder, 'migrations', 'fixtures', 'functions', 'is_encrypted.sql'),
    `create or replace function filestore.is_encrypted(encryption text)
returns boolean
language sql
immutable parallel safe
begin atomic
  select coalesce(encryption <> 'none', false);
end;

comment on function filestore.is_encrypted(text) is
  'Whether a file with this encryption is encrypted.';

revoke all on function filestore.is_encrypted(text) from public;
`,
  );
  const column = `alter table filestore.nodes add column if not exists encryption text;
alter table filestore.snapshots add column if not exists encryption text;
comment on column filestore.nodes.encryption is 'How the content is encrypted, such as sse-kms; null when unknown.';
comment on column filestore.snapshots.encryption is 'How the content is encrypted, such as sse-kms; null when unknown.';
--!include views/view_filestore_active_nodes.sql
--!include views/view_filestore_node_versions.sql
`;
  return `${nodeColumn ? column : ''}--!include functions/is_encrypted.sql\n`;
}

function index(nodeColumn: boolean): string {
  const { name, table, column } = indexed(nodeColumn);
  return `--! no-transaction
create index concurrently if not exists ${name} on filestore.${table} (${column} collate "C") where ${column} is not null;
`;
}

/** Also comments on the index, since the migration that builds it concurrently can have no other statement. */
function stateOfMount(folder: string, nodeColumn: boolean): string {
  const view = 'views/view_filestore_directories.sql';
  const file = join(folder, 'migrations', 'fixtures', view);
  const text = readFileSync(file, 'utf8');
  const grown = text.replace(
    '\nfrom filestore.nodes n\n',
    ',\n  m.state as mount_state\nfrom filestore.nodes n\n',
  );
  if (grown === text) {
    throw new Error(`fixtures/${view} has no line "from filestore.nodes n" to add a column before.`);
  }
  writeFileSync(file, grown);
  appendFileSync(
    file,
    "comment on column filestore.view_filestore_directories.mount_state is 'backend_mounts.state.';\n",
  );
  const { name, column } = indexed(nodeColumn);
  return `comment on index filestore.${name} is 'Rows by ${column}.';\n--!include ${view}\n`;
}

function indexed(nodeColumn: boolean) {
  return nodeColumn
    ? { name: 'nodes_encryption_idx', table: 'nodes', column: 'encryption' }
    : { name: 'backend_mounts_owner_hint_idx', table: 'backend_mounts', column: 'owner_hint' };
}

const CONTACTS = `create table if not exists filestore.mount_contacts (
  backend_mount_id bigint           not null,
  address          text collate "C" not null,

  constraint mount_contacts_pkey
    primary key (backend_mount_id, address),
  constraint mount_contacts_backend_mount_fkey
    foreign key (backend_mount_id) references filestore.backend_mounts (id) on delete cascade,
  constraint mount_contacts_address_check
    check (address <> '')
);

comment on table  filestore.mount_contacts                  is 'People to inform about problems of a mount.';
comment on column filestore.mount_contacts.backend_mount_id is 'backend_mounts.id. Deleting the mount deletes the contact.';
comment on column filestore.mount_contacts.address          is 'An address of mail.';
comment on constraint mount_contacts_backend_mount_fkey on filestore.mount_contacts is 'A contact is deleted with its mount.';
comment on constraint mount_contacts_address_check      on filestore.mount_contacts is 'An address is not empty.';
`;

const DRAINING = `alter table filestore.backend_mounts
  drop constraint if exists backend_mounts_state_check,
  add constraint backend_mounts_state_check
    check (state in ('active', 'inactive', 'offline', 'degraded', 'error', 'unknown', 'draining')) not valid;
`;

const DRAINING_VALIDATED = `alter table filestore.backend_mounts validate constraint backend_mounts_state_check;
`;
