// Package parts fetches and keeps the run-time parts: files that the product needs and does not carry, such as the ONNX
// Runtime library. parts.json pins each of them by package, version, size and sha256. A part is fetched by its package name
// with pip or npm, checked twice (the package, then the member taken out of it) and kept in a cache; it is checked again when
// it is used. The package imports nothing else of this module.
//
// The cache is $CHATXRAY_PARTS, else $XDG_CACHE_HOME/chatxray/parts, else ~/.cache/chatxray/parts. A file lies in it as
// NAME/VERSION/FILE. Where no package registry can be reached, $CHATXRAY_PARTS_FROM names a folder that holds the packages
// under the file names of parts.json; nothing is fetched then.
package parts

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
)

// The sentinels of this package. Each error says what is wrong, where, and what to do.
var (
	ErrMissing  = errors.New("missing run-time part")      // pinned, but not in the cache
	ErrUnknown  = errors.New("unknown run-time part")      // not in parts.json
	ErrPlatform = errors.New("no build for this platform") // pinned for other platforms only
	ErrDamaged  = errors.New("run-time part is damaged")   // bytes that are not the pinned ones
	ErrTool     = errors.New("package manager failed")     // pip or npm is missing, or did not bring the package
	ErrFull     = errors.New("disk full")                  // no room in the cache or the temporary folder
	ErrCache    = errors.New("parts cache cannot be used") // no place, no permission
)

// When a part is needed.
const (
	NeededAlways   = "always"
	NeededCPU      = "cpu"
	NeededGPU      = "gpu"
	NeededTraining = "training" // fetched on demand only
)

// Part is one pinned run-time part.
type Part struct {
	Name    string  `json:"name"`    // what Path and Fetch are asked for
	For     string  `json:"for"`     // what the product uses it for
	Licence string  `json:"licence"` // SPDX identifier of the members
	Kind    string  `json:"kind"`    // "pip" or "npm"
	Package string  `json:"package"` // name in the registry
	Version string  `json:"version"` // exact
	Needed  string  `json:"needed"`  // one of the Needed constants
	Builds  []Build `json:"builds"`  // one a platform
}

// Build is the package of a part for one platform.
type Build struct {
	Platform string   `json:"platform"`      // GOOS/GOARCH, or "any"
	Tag      string   `json:"tag,omitempty"` // pip's platform tag
	File     string   `json:"file"`          // the package's file name
	Size     int64    `json:"size"`          // of the package, bytes
	SHA256   string   `json:"sha256"`        // of the package
	Members  []Member `json:"members"`       // the first is what Path returns
}

// Member is a file taken out of a package.
type Member struct {
	Path   string `json:"path"` // inside the package
	File   string `json:"file"` // its base name in the cache
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Build returns the build for the running platform, or ErrPlatform.
func (p Part) Build() (Build, error) {
	here := runtime.GOOS + "/" + runtime.GOARCH
	for _, b := range p.Builds {
		if b.Platform == here || b.Platform == "any" {
			return b, nil
		}
	}
	return Build{}, fmt.Errorf("%w: %s %s has none for %s; run the product on linux/amd64, or without this part", ErrPlatform, p.Name, p.Version, here)
}

//go:embed parts.json
var pinned []byte

var catalogue = sync.OnceValue(func() []Part {
	list, err := parse(pinned)
	if err != nil {
		panic("parts.json: " + err.Error())
	}
	return list
})

// List returns every pinned part in the order of parts.json. The caller owns the slice, not what it points to.
func List() []Part { return slices.Clone(catalogue()) }

// Needed names the parts that serving needs, with or without a GPU.
func Needed(gpu bool) []string {
	runs := NeededCPU
	if gpu {
		runs = NeededGPU
	}
	var names []string
	for _, p := range catalogue() {
		if p.Needed == NeededAlways || p.Needed == runs {
			names = append(names, p.Name)
		}
	}
	return names
}

// parse reads a parts.json strictly: unknown keys, double names, and values that could lead outside of the cache are errors.
func parse(b []byte) ([]Part, error) {
	var doc struct {
		Parts []Part `json:"parts"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, p := range doc.Parts {
		if seen[p.Name] {
			return nil, fmt.Errorf("part %q is there twice", p.Name)
		}
		seen[p.Name] = true
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("part %q: %w", p.Name, err)
		}
	}
	return doc.Parts, nil
}

func (p Part) check() error {
	switch {
	case !plain(p.Name) || !plain(p.Version):
		return errors.New("name and version must be plain file names")
	case p.Package == "" || p.For == "" || p.Licence == "":
		return errors.New("package, for and licence must be given")
	case p.Kind != "pip" && p.Kind != "npm":
		return fmt.Errorf("kind %q is neither pip nor npm", p.Kind)
	case !slices.Contains([]string{NeededAlways, NeededCPU, NeededGPU, NeededTraining}, p.Needed):
		return fmt.Errorf("needed %q is not a known word", p.Needed)
	case len(p.Builds) == 0:
		return errors.New("no build")
	}
	for _, b := range p.Builds {
		if !plain(b.File) || b.Size <= 0 || !digest(b.SHA256) || len(b.Members) == 0 {
			return fmt.Errorf("build %s: file, size, sha256 or members are not valid", b.Platform)
		}
		for _, m := range b.Members {
			if !plain(m.File) || m.Path == "" || m.Size < 0 || !digest(m.SHA256) {
				return fmt.Errorf("build %s: member %q is not valid", b.Platform, m.Path)
			}
		}
	}
	return nil
}

// plain tells whether s is one visible path element.
func plain(s string) bool {
	return s != "" && s[0] != '.' && filepath.IsLocal(s) && filepath.Base(s) == s
}

func digest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}
