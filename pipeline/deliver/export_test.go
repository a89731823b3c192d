package deliver

import (
	"maps"
	"slices"
)

// Kinds lists every registered kind.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }
