// Package house checks the rules of the house that no compiler checks: who imports whom, which dependency has which door, and
// that the files around the code say the same as the code.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chatxray/config"
	"chatxray/parts"
)

// goPackage is what `go list` tells of a package. Imports are those of its non-test files.
type goPackage struct {
	ImportPath, Doc            string
	Imports, GoFiles, CgoFiles []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles,CgoFiles", "./...")
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(bytes.NewReader(b)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// room is a package's path inside of the module.
func room(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, "chatxray"), "/")
}

// mayImport is the star: cmd joins everything, config joins the Config structs, everybody else knows only pipeline.
func mayImport(from, to string) bool {
	switch {
	case strings.HasPrefix(from, "cmd/"), strings.HasPrefix(from, "bench/"): // a benchmark is a test: it may know several rooms
		return !strings.HasPrefix(to, "cmd/")
	case from == "config":
		return slices.Contains([]string{"pipeline", "dicomweb", "modelrt", "sr", "pipeline/archive", "pipeline/deliver", "pipeline/jobs", "pipeline/rules", "pipeline/worklist"}, to)
	case from == "modelrt" && strings.HasPrefix(to, "modelrt/"): // a chamber of the room, which no other room opens
		return true
	case from == "pipeline", from == "parts", from == "web", from == "e2e", strings.HasPrefix(from, "test/"):
		return false
	}
	return to == "pipeline"
}

func TestImportStar(t *testing.T) {
	for _, p := range packages(t) {
		for _, i := range p.Imports {
			if strings.HasPrefix(i, "chatxray/") && !mayImport(room(p.ImportPath), room(i)) {
				t.Errorf("%s imports %s: no room opens onto another; what both need is a plain type of pipeline, and cmd/chatxray hands it in", room(p.ImportPath), room(i))
			}
		}
	}
}

// doors names the only rooms that may import a dependency.
var doors = []struct {
	prefix string
	rooms  []string
}{
	{"github.com/gin-gonic/", []string{"dicomweb"}},
	{"github.com/gin-contrib/", []string{"dicomweb"}},
	{"github.com/coreos/go-oidc", []string{"dicomweb"}},
	{"golang.org/x/crypto", []string{"dicomweb"}},
	{"golang.org/x/image/", []string{"dicomweb", "cmd/chatxray"}},
	{"github.com/redis/", []string{"pipeline/jobs"}},
	{"github.com/alicebob/miniredis", []string{"pipeline/jobs"}},
	{"github.com/yalue/onnxruntime_go", []string{"modelrt", "modelrt/kernel"}},
	{"C", []string{"modelrt", "modelrt/kernel"}},
	{"github.com/rivo/uniseg", []string{"modelrt/token"}},
	{"google.golang.org/protobuf", []string{"modelrt", "modelrt/token"}},
	{"github.com/sony/gobreaker", []string{"modelrt/remote", "pipeline/deliver"}},
	{"github.com/expr-lang/expr", []string{"pipeline/rules"}},
	{"golang.org/x/time", []string{"pipeline/deliver"}},
	{"github.com/suyashkumar/dicom", []string{"pipeline/dicom"}},
	{"github.com/tetratelabs/wazero", []string{"pipeline/dicom"}},
	{"modernc.org/sqlite", []string{"pipeline/archive"}},
	{"github.com/jackc/pgx", []string{"pipeline/archive"}},
	{"database/sql", []string{"pipeline/archive"}},
	{"github.com/alecthomas/kong", []string{"cmd/chatxray"}},
	{"github.com/openai/openai-go", []string{"e2e"}},                       // a client of others, in tests only
	{"github.com/standard-webhooks/", []string{"pipeline/deliver", "e2e"}}, // a verifier of others, in tests only
}

func TestOneDoorForEachDependency(t *testing.T) {
	for _, p := range packages(t) {
		for _, d := range doors {
			for _, i := range p.Imports {
				if (i == d.prefix || strings.HasPrefix(i, d.prefix) && d.prefix != "C") && !slices.Contains(d.rooms, room(p.ImportPath)) {
					t.Errorf("%s imports %s, whose door is %s", room(p.ImportPath), i, strings.Join(d.rooms, ", "))
				}
			}
		}
	}
}

func TestPackageNames(t *testing.T) {
	drawers := regexp.MustCompile(`^(utils?|common|helpers?|types|managers?|services?|misc|base|shared)$`)
	for _, p := range packages(t) {
		for _, part := range strings.Split(room(p.ImportPath), "/") {
			if drawers.MatchString(part) {
				t.Errorf("%s: %q is a drawer, not a room: name the package by what it knows", room(p.ImportPath), part)
			}
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", room(p.ImportPath))
		}
	}
}

// Files of about 300 lines; over 450 is where to look for a split, over 600 is an error.
func TestFileLengths(t *testing.T) {
	for _, name := range tracked(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			continue // removed, not yet committed
		}
		switch n := bytes.Count(b, []byte("\n")); {
		case n > 600:
			t.Errorf("%s has %d lines: split it", name, n)
		case n > 450:
			t.Logf("%s has %d lines", name, n)
		}
	}
}

// tracked lists the files that git knows.
func tracked(t *testing.T) []string {
	t.Helper()
	b, err := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z").Output()
	if err != nil {
		t.Skipf("no git repository here, so no list of its files: %v", err)
	}
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == 0 })
}

// The notices name exactly the modules that are linked into the binary.
func TestNoticesAreFresh(t *testing.T) {
	b, err := os.ReadFile("THIRD_PARTY_NOTICES.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\S+) \| (v\d\S*) \| \S+ \|$`).FindAllStringSubmatch(string(b), -1)
	var noted []string
	for _, r := range rows {
		noted = append(noted, r[1]+" "+r[2])
	}
	var linked []string
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/chatxray")
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		linked = append(linked, strings.Split(strings.TrimSpace(string(out)), "\n")...)
	}
	for _, list := range []*[]string{&noted, &linked} {
		slices.Sort(*list)
		*list = slices.Compact(slices.DeleteFunc(*list, func(s string) bool { return s == "" }))
	}
	for _, m := range linked {
		if !slices.Contains(noted, m) {
			t.Errorf("THIRD_PARTY_NOTICES.md lacks %s: run make notices", m)
		}
	}
	for _, m := range noted {
		if !slices.Contains(linked, m) {
			t.Errorf("THIRD_PARTY_NOTICES.md names %s, which is not linked: run make notices", m)
		}
	}
	for _, p := range parts.List() {
		if !strings.Contains(string(b), "| "+p.Name+" | "+p.Package+" "+p.Version+" ") {
			t.Errorf("THIRD_PARTY_NOTICES.md lacks the run-time part %s %s: run make notices", p.Name, p.Version)
		}
	}
}

// stage is one FROM of the Dockerfile and what follows it.
type stage struct {
	name, body string
}

func dockerStages(t *testing.T) []stage {
	t.Helper()
	b, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	from := regexp.MustCompile(`(?m)^FROM \S+ AS (\S+)$`)
	var stages []stage
	at := from.FindAllStringSubmatchIndex(string(b), -1)
	for i, m := range at {
		end := len(b)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		stages = append(stages, stage{string(b[m[2]:m[3]]), string(b[m[1]:end])})
	}
	return stages
}

// The images are built by the Makefile's targets, run as nobody, and hold the parts of their kind.
func TestDockerfile(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	stages := dockerStages(t)
	if len(stages) == 0 || stages[len(stages)-1].name != "cpu" {
		t.Error("the last stage, which is built by default, must be cpu")
	}
	made := map[string]bool{}
	for _, s := range stages {
		for _, m := range regexp.MustCompile(`(?m)^RUN make (\S+)`).FindAllStringSubmatch(s.body, -1) {
			made[m[1]] = true
			if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(m[1]) + `:`).Match(makefile) {
				t.Errorf("stage %s runs make %s, which the Makefile does not have", s.name, m[1])
			}
		}
		if m := regexp.MustCompile(`\b(go build|go install|pip download|npm pack|parts fetch)\b`).FindString(s.body); m != "" {
			t.Errorf("stage %s runs %q itself: that is the Makefile's", s.name, m)
		}
	}
	if !made["build"] || !made["parts"] {
		t.Errorf("the Dockerfile makes %v, not build and parts", made)
	}
	for _, target := range []string{"cpu", "cuda"} {
		i := slices.IndexFunc(stages, func(s stage) bool { return s.name == target })
		if i < 0 {
			t.Errorf("no stage %s", target)
			continue
		}
		users := regexp.MustCompile(`(?m)^USER (\S+)$`).FindAllStringSubmatch(stages[i].body, -1)
		if len(users) == 0 || !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(users[len(users)-1][1]) {
			t.Errorf("stage %s must end as a numeric user that is not root (Kubernetes' runAsNonRoot needs the number)", target)
		}
		if !strings.Contains(stages[i].body, "--from=parts-"+target+" ") {
			t.Errorf("stage %s does not hold the parts of its kind", target)
		}
	}
	for _, m := range regexp.MustCompile(`(?s)COPY <<EOF /etc/chatxray/config.yaml\n(.*?)\nEOF`).FindAllSubmatch([]byte(stages[slices.IndexFunc(stages, func(s stage) bool { return s.name == "product" })].body), -1) {
		checkConfig(t, "the image's configuration", m[1])
	}
}

// checkConfig parses a configuration whose secrets come from the environment.
func checkConfig(t *testing.T, name string, b []byte) {
	t.Helper()
	for _, m := range regexp.MustCompile(`env:(\w+)`).FindAllSubmatch(b, -1) {
		t.Setenv(string(m[1]), "0123456789abcdef0123456789abcdef")
	}
	c, err := config.Parse(b)
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// Every file that another file of the house names is there.
func TestFilesAreThere(t *testing.T) {
	for _, name := range []string{"LICENSE", "THIRD_PARTY_NOTICES.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/example.yaml", path.Join("docs", "bundle.md")} {
		if st, err := os.Stat(name); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
