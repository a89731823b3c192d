package archive

import "syscall"

// directFlag has a file written past the page cache (open(2)).
const directFlag = syscall.O_DIRECT
