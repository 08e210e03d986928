--! Previous: sha1:a84bbe8078eb59da7cbd517349a2d6d60b68c094
--! Hash: sha1:21e62124abc7c3fae64e09dfb8247f6e43a9e19d
--! Message: Pending list of the journal

-- Any session may raise the server's limit, and the next one that ends a command would then merge what it has left.
alter index filestore.journal_entries_nodes_idx set (gin_pending_list_limit = 64);
