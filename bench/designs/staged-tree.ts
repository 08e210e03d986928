import type { Client } from 'pg';
import type { Place } from './design.ts';

/** Chosen once; another one gives another tree. */
const SEED = 20_261_127;
const EMPTY_CHECKSUM = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
const TAIL_DEPTH = 23;
const FILES_OF_A_LEAF = { from: 3, to: 60 } as const;

/** A tree in bench.nodes, the same for the same number of nodes: ids, names, contents and all. */
export interface StagedTree {
  readonly nodes: number;
  readonly root: Place;
  /** Holds `batches` empty directories, whose ids are `batchesFrom` and following, and names `batch-1` and following. */
  readonly incoming: Place;
  readonly batches: number;
  readonly batchesFrom: number;
  /** A directory with a tenth of all nodes in it. */
  readonly flat: Place;
  readonly flatSize: number;
  /** Trees that are summed, moved, copied, deleted and restored, with the number of nodes of each, its top included. */
  readonly small: Subtree;
  readonly large: Subtree;
  readonly wide: Subtree;
  /** Where nothing else is: trees are moved there. */
  readonly archive: Place;
  readonly projects: Place;
  /** A directory of the small tree, with others below it: connections meet there. */
  readonly racing: Place;
  /** The 200 directories that are nearest to the root of the largest tree. */
  readonly page: readonly Place[];
  /** Ids of all files are from here on. */
  readonly filesFrom: number;
  /** Files chosen at random. */
  readonly files: readonly SampleFile[];
}

export interface Subtree extends Place {
  readonly size: number;
}

export interface SampleFile extends Place {
  readonly checksum: string;
  readonly tag: string;
}

interface Region {
  readonly name: string;
  readonly directories: number;
  readonly branches: number;
}

/** A tree of about so many nodes: leaf directories at depth 3 to 6, a few files in the directories above them. */
function regionOf(name: string, nodes: number): Region {
  const average = (FILES_OF_A_LEAF.from + FILES_OF_A_LEAF.to) / 2;
  let directories = Math.max(1, Math.round(nodes / (average + 1)));
  // A share of the directories is no leaf, and holds less.
  const branches = Math.max(2, Math.ceil(directories ** 0.25));
  directories = Math.max(1, Math.round(nodes / ((1 - 1 / branches) * average + 1.5 / branches + 1)));
  return { name, directories, branches };
}

/** Sizes of the trees for a number of nodes; from a million on they no longer grow. */
function subtreeSizes(nodes: number) {
  return {
    small: Math.min(10_000, Math.floor(nodes / 100)),
    large: Math.min(100_000, Math.floor(nodes / 10)),
    wide: Math.min(200_000, Math.floor(nodes / 5)),
  };
}

export async function stageTree(client: Client, nodes: number): Promise<StagedTree> {
  const sizes = subtreeSizes(nodes);
  const batches = Math.max(20, Math.min(1_000, Math.floor(nodes / 100)));
  const tails = Math.max(1, Math.floor(nodes / 20_000));
  const tailNodes = tails * TAIL_DEPTH * 4;
  const flat = Math.floor(nodes / 10);
  const rest = nodes - flat - sizes.small - sizes.large - sizes.wide - batches - tailNodes - 10;
  const regions = [
    regionOf('rest', rest),
    regionOf('large', sizes.large),
    regionOf('small', sizes.small),
    regionOf('wide', sizes.wide),
  ];
  await client.query('drop schema if exists bench cascade; create schema bench');
  await client.query(`
    create function bench.pick(number bigint, salt integer) returns bigint
    language sql immutable parallel safe
    return hashint8extended(number, ${SEED} + salt) & 9223372036854775807`);
  await client.query(skeleton(regions, batches, tails));
  await client.query(DIRECTORIES);
  await client.query("update bench.directories set files = $1 where region = 'flat'", [flat]);
  await client.query(TRIM, [nodes]);
  await client.query(nodesOf(nodes));
  await client.query(moreFiles(Math.min(100_000, Math.floor(nodes / 20)), batches));
  await client.query('vacuum analyze bench.nodes, bench.more, bench.directories');
  return describe(client, batches);
}

const skeleton = (regions: readonly Region[], batches: number, tails: number) => `
  create unlogged table bench.skeleton (
    place bigint generated always as identity,
    region text not null, k bigint not null, parent_region text, parent_k bigint, name text collate "C" not null, files bigint not null default 0
  );
  insert into bench.skeleton (region, k, parent_region, parent_k, name) values
    ('root', 0, null, null, ''), ('incoming', 0, 'root', 0, 'incoming');
  insert into bench.skeleton (region, k, parent_region, parent_k, name)
  select 'incoming', n, 'incoming', 0, 'batch-' || n from generate_series(1, ${batches}) n;
  insert into bench.skeleton (region, k, parent_region, parent_k, name) values
    ('uploads', 0, 'root', 0, 'uploads'), ('projects', 0, 'root', 0, 'projects'), ('archive', 0, 'root', 0, 'archive'),
    ('flat', 0, 'uploads', 0, 'unsorted'), ('rest', 0, 'projects', 0, 'aurora-survey'),
    ('large', 0, 'projects', 0, 'borealis-survey'), ('small', 0, 'projects', 0, 'cirrus-survey'),
    ('wide', 0, 'archive', 0, 'finished-surveys');
  -- lpad also cuts: without the greatest, two of more than 99,999 directories could have one name.
  ${regions
    .map(
      ({ name, directories, branches }) => `
  insert into bench.skeleton (region, k, parent_region, parent_k, name)
  select '${name}', k, '${name}', greatest(0, (k - 1 - bench.pick(k, 1) % 2) / ${branches}),
    (array['session', 'specimen', 'assembly', 'exposure', 'transect', 'plot', 'mosaic', 'calibration'])[1 + bench.pick(k, 2) % 8]
      || '-' || lpad(k::text, greatest(5, length(k::text)), '0')
  from generate_series(1, ${directories}) k;`,
    )
    .join('')}
  -- Not "exists": Postgres evaluates it row by row, for hours, once the hash table would be larger than work_mem.
  update bench.skeleton d
  set files = case
    when p.parent_k is null then ${FILES_OF_A_LEAF.from} + bench.pick(d.place, 3) % ${FILES_OF_A_LEAF.to - FILES_OF_A_LEAF.from + 1}
    else bench.pick(d.place, 3) % 4
  end
  from bench.skeleton s
  left join (select distinct c.parent_region, c.parent_k from bench.skeleton c) p
    on p.parent_region = s.region and p.parent_k = s.k
  where d.place = s.place and s.region in ('rest', 'large', 'small', 'wide');
  -- A few very deep places.
  insert into bench.skeleton (region, k, parent_region, parent_k, name, files)
  select 'tail-' || t, j, case j when 1 then 'rest' else 'tail-' || t end,
    case j when 1 then 1 + bench.pick(t, 4) % ${regions[0]?.directories ?? 1} else j - 1 end, 'level-' || lpad(j::text, 2, '0'), 3
  from generate_series(1, ${tails}) t
  cross join generate_series(1, ${TAIL_DEPTH}) j;`;

const DIRECTORIES = `
  create unlogged table bench.directories as
  with recursive tree (region, k, parent_region, parent_k, name, files, place, parent_path, path, depth) as (
    select region, k, parent_region, parent_k, name, files, place, null::text collate "C", '' collate "C", 0
    from bench.skeleton
    where region = 'root'
    union all
    select s.region, s.k, s.parent_region, s.parent_k, s.name, s.files, s.place, t.path,
      case t.path when '' then '' else t.path || '/' end || s.name, t.depth + 1
    from tree t
    join bench.skeleton s on s.parent_region = t.region and s.parent_k = t.k
  ),
  numbered as (select t.*, row_number() over (order by t.place) as id from tree t)
  select n.id, p.id as parent_id, n.region, n.k, n.name, n.files, n.parent_path, n.path, n.depth
  from numbered n
  left join numbered p on p.region = n.parent_region and p.k = n.parent_k
  order by n.id;
  create unique index on bench.directories (id);
  drop table bench.skeleton;`;

/** Takes files from leaf directories of the largest tree, or adds some, until there are $1 nodes. */
const TRIM = `
  update bench.directories d
  set files = d.files - least(c.room, greatest(0, c.left_over)) * c.direction
  from (
    select l.id, l.room, l.direction, l.excess - coalesce(sum(l.room) over (order by l.id rows between unbounded preceding and 1 preceding), 0) as left_over
    from (
      select d.id, abs(t.excess) as excess, sign(t.excess) as direction,
        case when t.excess > 0 then d.files - ${FILES_OF_A_LEAF.from} else ${FILES_OF_A_LEAF.to} - d.files end as room
      from bench.directories d
      cross join (select sum(files) + count(*) - $1 as excess from bench.directories) t
      where d.region = 'rest' and d.files >= ${FILES_OF_A_LEAF.from}
        and not exists (select from bench.directories c where c.parent_id = d.id)
    ) l
  ) c
  where d.id = c.id`;

/** Directories first, then the files of one directory after those of the other, as a loader that walks a disk has them. */
const nodesOf = (nodes: number) => `
  create unlogged table bench.nodes as
  select id, 1::bigint as mount_id, parent_id, parent_path, name, path, depth, 'directory' as kind, 0::bigint as size_bytes,
    null::text as checksum, '{}'::jsonb as metadata, 'active' as state, null::timestamptz as last_modified_at
  from bench.directories
  order by id;
  insert into bench.nodes
  select f.id, 1, f.parent_id, f.parent_path, f.name, f.parent_path || '/' || f.name, f.depth, 'file',
    case when f.chance < 30 then 0 else 1 + bench.pick(f.content, 5) % 1000 * (bench.pick(f.content, 6) % 40000) end,
    case when f.chance < 30 then '${EMPTY_CHECKSUM}' else 'sha256:' || md5(f.content::text) || md5((-f.content)::text) end,
    format(
      '{"owner": "user-%s", "camera": "model-%s", "tag": "t-%s", "title": "Survey of plot %s, exposure %s ms", "run": {"site": "station-%s", "number": %s}, "checked": %s, "remark": "%s"}',
      bench.pick(f.id, 7) % 200, bench.pick(f.id, 8) % 40, bench.pick(f.id, 9) % ${Math.max(10, Math.floor(nodes / 20))},
      bench.pick(f.id, 10) % 9000, bench.pick(f.id, 11) % 5000, bench.pick(f.parent_id, 12) % 30, bench.pick(f.parent_id, 13) % 100000,
      case bench.pick(f.id, 14) % 2 when 0 then 'true' else 'false' end, md5(f.id::text) || md5((-f.id)::text)
    )::jsonb,
    case bench.pick(f.id, 15) % 1000 when 0 then 'inconsistent' when 1 then 'missing' else 'active' end,
    timestamptz '2024-01-01 00:00:00Z' + f.id % 40000000 * interval '1 s'
  from (
    select n.id, d.id as parent_id, d.path as parent_path, d.depth + 1 as depth,
      (array['IMG_20240613_', 'scan-report-', 'measurement-', 'frame_', 'DSC_', 'spectrum.raw-'])[1 + bench.pick(d.id, 16) % 6]
        || lpad((d.id % 10000)::text, 4, '0') || '-' || lpad(g::text, 7, '0')
        || (array['.jpg', '.tif', '.csv', '.h5'])[1 + bench.pick(d.id, 17) % 4] as name,
      bench.pick(n.id, 18) % 1000 as chance,
      -- One file in twenty has a content that others have too.
      case when bench.pick(n.id, 19) % 20 = 0 then 1 + bench.pick(n.id, 20) % ${Math.max(10, Math.floor(nodes / 50))} else n.id + 1000000000000 end as content
    from (
      select d.*, count(*) over () + sum(d.files) over (order by d.id) - d.files as before
      from bench.directories d
    ) d
    cross join lateral generate_series(1, d.files) g
    cross join lateral (select (d.before + g)::bigint as id) n
  ) f
  order by f.id;
  create unique index on bench.nodes (id);`;

/** Files for inserts into a tree that is already large. */
const moreFiles = (files: number, batches: number) => `
  create unlogged table bench.more as
  select 1::bigint as mount_id, d.id as parent_id, d.path as parent_path, 'extra-' || lpad(g::text, 7, '0') as name,
    d.path || '/extra-' || lpad(g::text, 7, '0') as path, 1000 + g as size_bytes,
    'sha256:' || md5('more ' || g) || md5('more ' || -g) as checksum,
    jsonb_build_object('owner', 'user-' || g % 200, 'remark', md5(g::text) || md5((-g)::text) || md5((g + 7)::text)) as metadata,
    timestamptz '2024-01-01 00:00:00Z' + g * interval '1 s' as last_modified_at
  from generate_series(1, ${files}) g
  join bench.directories d on d.region = 'incoming' and d.k = 1 + g % ${batches};`;

interface DirectoryRow extends Place {
  readonly region: string;
}

async function describe(client: Client, batches: number): Promise<StagedTree> {
  const { rows: totals } = await client.query(
    `select count(*)::integer as nodes, (min(id) filter (where kind = 'file'))::integer as files_from from bench.nodes`,
  );
  const { nodes, files_from: filesFrom } = totals[0];
  const { rows: tops } = await client.query<DirectoryRow>(
    `select id, '1' as "mountId", parent_id as "parentId", name, path, region from bench.directories
     where k = 0 order by id`,
  );
  const place = (region: string): Place => {
    const found = tops.find((top) => top.region === region);
    if (found === undefined) throw new Error(`the generated tree has no directory "${region}"`);
    return found;
  };
  const subtree = async (region: string): Promise<Subtree> => {
    const top = place(region);
    const { rows } = await client.query(
      `select count(*)::integer as size from bench.nodes where path = $1 or path >= $1 || '/' and path < $1 || '0'`,
      [top.path],
    );
    return { ...top, size: rows[0].size };
  };
  const directories = async (region: string, most: number) => {
    const { rows } = await client.query<Place>(
      `select id, '1' as "mountId", parent_id as "parentId", name, path from bench.directories
       where region = $1 and k > 0 order by k limit $2`,
      [region, most],
    );
    return rows;
  };
  const { rows: files } = await client.query<SampleFile>(
    `select n.id, '1' as "mountId", n.parent_id as "parentId", n.name, n.path, n.checksum, n.metadata ->> 'tag' as tag
     from generate_series(1, 400) g
     join bench.nodes n on n.id = $1 + bench.pick(g, 30) % $2
     order by g`,
    [filesFrom, nodes - filesFrom + 1],
  );
  const { rows: flat } = await client.query(
    "select files::integer as files from bench.directories where region = 'flat'",
  );
  return {
    nodes,
    root: place('root'),
    incoming: place('incoming'),
    batches,
    batchesFrom: Number(place('incoming').id) + 1,
    flat: place('flat'),
    flatSize: flat[0].files,
    small: await subtree('small'),
    large: await subtree('large'),
    wide: await subtree('wide'),
    archive: place('archive'),
    projects: place('projects'),
    racing: (await directories('small', 1))[0] ?? place('small'),
    page: await directories('rest', 200),
    filesFrom,
    files,
  };
}
