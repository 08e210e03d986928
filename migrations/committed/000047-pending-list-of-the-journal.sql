--! Previous: sha1:c3e17e5b66a69309e9545cb7f7d50dbd751d1955
--! Hash: sha1:0831492dd8f7d6be706b37532fa5875d9650cda8
--! Message: Pending list of the journal

-- Any session may raise the server's limit, and the next one that ends a command would then merge what it has left.
alter index filestore.journal_entries_nodes_idx set (gin_pending_list_limit = 64);
