package pipeline

// ValidUID reports whether s may stand for a UID in a path, a file name or a query: 1 to 64 digits and dots (PS3.5 section 9.1), no
// dot at an end, no two dots together. Components with a leading zero pass: the standard forbids them, the field has them.
func ValidUID(s string) bool {
	if len(s) == 0 || len(s) > 64 || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.' && s[i-1] == '.':
			return false
		case c != '.' && (c < '0' || c > '9'):
			return false
		}
	}
	return true
}
