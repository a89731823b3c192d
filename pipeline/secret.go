package pipeline

import (
	"fmt"
	"os"
	"strings"
)

// Secret is a configuration value that is never shown: printed, logged or marshalled it is ***.
type Secret string

// String implements fmt.Stringer.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString keeps %#v from telling.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// MarshalText implements encoding.TextMarshaler.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the value itself, or, written as env:NAME, the environment variable of that name, which must exist.
func (s *Secret) UnmarshalText(b []byte) error {
	if name, ok := strings.CutPrefix(string(b), "env:"); ok {
		v, set := os.LookupEnv(name)
		if !set {
			return fmt.Errorf("the environment variable %s is not set", name)
		}
		*s = Secret(v)
		return nil
	}
	*s = Secret(b)
	return nil
}

// Reveal returns the value. Only who hands it to the other side calls it.
func (s Secret) Reveal() string { return string(s) }
