"""What `look` is made of: one walk, headers and voxels, tables, patients, documents, warnings."""
