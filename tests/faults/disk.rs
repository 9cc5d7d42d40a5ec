//! Full and failing disks: the writes and syncs of a poll meet ENOSPC and EIO.
