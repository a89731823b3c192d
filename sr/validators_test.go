package sr_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/sr"
)

// tool finds a program, or skips the test and names the Debian package that has it.
func tool(t *testing.T, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: it is in the Debian package %s", program, pkg)
	}
	return path
}

// store writes a data set to a file.
func store(t *testing.T, path string, d pipeline.Dataset) {
	t.Helper()
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// documents writes every variant of every kind to a folder; file names are "variant, kind.dcm".
func documents(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for name, in := range variants() {
		for _, kind := range sr.Kinds() {
			d, err := sr.Dataset(in, kind)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, filepath.Join(dir, name+", "+string(kind)+".dcm"))
			store(t, files[len(files)-1], d)
		}
	}
	slices.Sort(files)
	return files
}

// falseAlarms are complaints that are wrong, each with its reason. One that no longer comes fails the test.
type falseAlarm struct {
	file, complaint *regexp.Regexp
	why             string
	heard           bool
}

func alarm(file, complaint, why string) *falseAlarm {
	return &falseAlarm{file: regexp.MustCompile(file), complaint: regexp.MustCompile(complaint), why: why}
}

// judge fails the test for every complaint that is no known false alarm.
func judge(t *testing.T, known []*falseAlarm, complaints map[string][]string) {
	t.Helper()
	for file, lines := range complaints {
		for _, line := range lines {
			i := slices.IndexFunc(known, func(a *falseAlarm) bool { return a.file.MatchString(file) && a.complaint.MatchString(line) })
			if i < 0 {
				t.Errorf("%s: %s", file, line)
				continue
			}
			known[i].heard = true
		}
	}
	for _, a := range known {
		if !a.heard {
			t.Errorf("the false alarm %q (%s) no longer comes: strike it off the list", a.complaint, a.why)
		}
	}
}

var errorLine = regexp.MustCompile(`(?m)^Error.*$`)

// dciodvfy returns its error lines about a file.
func dciodvfy(t *testing.T, program, file string) []string {
	out, err := exec.CommandContext(t.Context(), program, file).CombinedOutput()
	if len(out) == 0 {
		t.Fatalf("%s says nothing about %s: %v", program, file, err)
	}
	return errorLine.FindAllString(string(out), -1)
}

func TestDciodvfy(t *testing.T) {
	program := tool(t, "dciodvfy", "dicom3tools")
	complaints := map[string][]string{}
	for _, file := range documents(t) {
		complaints[filepath.Base(file)] = dciodvfy(t, program, file)
	}
	const bytesForCharacters = "it counts the bytes of a whole value, where PS3.5 section 6.2 counts the characters of each component group"
	judge(t, []*falseAlarm{
		alarm(`^very long names in three groups,`, `PN Patient's Name .*Length invalid for this VR = [0-9]+, expected <= 64`, bytesForCharacters),
		alarm(`^very long names in three groups,`, `LO Study Description .*Length invalid for this VR = [0-9]+, expected <= 64`, bytesForCharacters),
		alarm(`^very long names in three groups,`, `contains invalid data values for Value Representations`, "the sum of the two above"),
	}, complaints)

	// It is no use if it cannot see an error.
	for _, tag := range []pipeline.Tag{pipeline.TagCompletionFlag, pipeline.TagPatientID,
		pipeline.TagCurrentRequestedProcedureEvidenceSequence, pipeline.TagReferencedPerformedProcedureStepSequence} {
		file := filepath.Join(t.TempDir(), "broken.dcm")
		store(t, file, without(t, effusion(), pipeline.FindingsSR, tag))
		if lines := dciodvfy(t, program, file); len(lines) == 0 {
			t.Errorf("a document without %s passes", tag)
		}
	}
}

// without is a document that lacks an attribute at its top.
func without(t *testing.T, in sr.Input, kind pipeline.DocumentKind, tag pipeline.Tag) pipeline.Dataset {
	t.Helper()
	d, err := sr.Dataset(in, kind)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(d, func(e pipeline.Element) bool { return e.Tag == tag })
}

// dsrdump returns its error and warning lines about a file, but the one that says it checks no UTF-8.
func dsrdump(t *testing.T, program, file string) []string {
	cmd := exec.CommandContext(t.Context(), program, file)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var lines []string
	for line := range strings.Lines(stderr.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "VR checker does not support this Specific Character Set: ISO_IR 192") {
			lines = append(lines, line)
		}
	}
	if err != nil || len(out) == 0 {
		lines = append(lines, fmt.Sprintf("no dump: %v", err))
	}
	return lines
}

func TestDsrdump(t *testing.T) {
	program := tool(t, "dsrdump", "dcmtk")
	complaints := map[string][]string{}
	for _, file := range documents(t) {
		complaints[filepath.Base(file)] = dsrdump(t, program, file)
	}
	judge(t, nil, complaints)

	// A CODE must not be inferred from an image in Basic Text SR.
	d, err := sr.Dataset(effusion(), pipeline.NarrativeSR)
	if err != nil {
		t.Fatal(err)
	}
	var changed bool
	visit(d, func(item *pipeline.Dataset) {
		if item.String(pipeline.TagRelationshipType) == "CONTAINS" && item.String(pipeline.TagTextValue) == "No pneumothorax." {
			item.SetText(pipeline.TagValueType, "CS", "CODE")
			item.SetItems(pipeline.TagConceptCodeSequence, coded("36118008", "SCT", "Pneumothorax"))
			changed = true
		}
	})
	file := filepath.Join(t.TempDir(), "broken.dcm")
	store(t, file, d)
	if lines := dsrdump(t, program, file); !changed || len(lines) == 0 {
		t.Error("a code inferred from an image passes")
	}
}

// visit calls change for every content item below the root.
func visit(d pipeline.Dataset, change func(*pipeline.Dataset)) {
	items := d.Items(pipeline.TagContentSequence)
	for i := range items {
		change(&items[i])
		visit(items[i], change)
	}
}

const pixelmedJar = "/usr/share/java/pixelmed.jar"

func TestPixelMed(t *testing.T) {
	if _, err := os.Stat(pixelmedJar); err != nil {
		t.Skipf("%s is absent: it is in the Debian package pixelmed-apps", pixelmedJar)
	}
	tool(t, "javac", "default-jdk-headless")
	files := documents(t)
	broken := filepath.Join(t.TempDir(), "broken.dcm")
	d, err := sr.Dataset(effusion(), pipeline.FindingsSR)
	if err != nil {
		t.Fatal(err)
	}
	// Rules of three kinds: a mandatory row (TID 1004 row 1), a value set (CID 29), a relationship.
	children := d.Items(pipeline.TagContentSequence)
	d.SetItems(pipeline.TagContentSequence, slices.DeleteFunc(children, func(c pipeline.Dataset) bool { return c.String(pipeline.TagValueType) == "UIDREF" })...)
	visit(d, func(item *pipeline.Dataset) {
		switch {
		case item.String(pipeline.TagRelationshipType) == "HAS ACQ CONTEXT":
			item.SetItems(pipeline.TagConceptCodeSequence, coded("OT", "DCM", "Other Modality"))
		case item.String(pipeline.TagTextValue) == "Pneumothorax":
			item.SetText(pipeline.TagRelationshipType, "CS", "CONTAINS")
		}
	})
	store(t, broken, d)

	// The limits of the XPath engine of JDK 17 are below what the rules need.
	args := []string{"-XX:+UseSerialGC", "-Djdk.xml.xpathExprOpLimit=0", "-Djdk.xml.xpathTotalOpLimit=0", "-Djdk.xml.xpathExprGrpLimit=0",
		"-Dfile.encoding=UTF-8", "-cp", pixelmedJar, "testdata/Validate.java"}
	out, err := exec.CommandContext(t.Context(), tool(t, "java", "default-jdk-headless"), append(args, append(files, broken)...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	complaints := map[string][]string{}
	seen := 0
	for _, part := range strings.Split("\n"+string(out), "\nFile: ")[1:] {
		file, text, _ := strings.Cut(part, "\n")
		file = filepath.Base(file)
		seen++
		if file == "broken.dcm" {
			for _, want := range []string{"(121012,DCM", "(OT,DCM", "(112039,DCM"} {
				if !regexp.MustCompile(`(?m)^Error: .*` + regexp.QuoteMeta(want)).MatchString(text) {
					t.Errorf("the broken document has no error about %s:\n%s", want, text)
				}
			}
			continue
		}
		template := "Found Root Template TID_1500"
		if strings.HasSuffix(file, ", narrative.dcm") {
			template = "Found Root Template TID_2000"
		}
		for _, want := range []string{template, "Root Template Validation Complete", "IOD validation complete"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", file, want, text)
			}
		}
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "Found ") && !strings.HasSuffix(strings.ToLower(line), "complete") {
				complaints[file] = append(complaints[file], line)
			}
		}
	}
	if seen != len(files)+1 {
		t.Fatalf("%d of %d files were validated:\n%s", seen, len(files)+1, out)
	}
	const tables2022 = "its tables are of 2022; the template is extensible, and this is a warning"
	judge(t, []*falseAlarm{
		alarm(`, findings`, `^Warning: .*\(125007,DCM,"[^"]*"\)/(CODE \(705057003,SCT,"[^"]*"\)|TEXT \(111412,DCM,"[^"]*"\)): Content Item not in template$`, tables2022),
		alarm(`, findings`, `^Warning: .*/TEXT \((?:head-conflict|comparison|contradiction|side-conflict),99CHATXRAY,.*: Content Item not in template$`, tables2022),
		alarm(`, narrative`, `^Warning: .*/CONTAINER \((55111-9|59776-5|19005-8),LN,.*: Content Item not in template$`, tables2022+"; CID 7001 had no LOINC headings"),
		alarm(`^(German|Chinese|umlaut),`, `^Warning: .* has different code meaning \("[^"]*"\) than code meaning in `, "PS3.3 section 8.3: a meaning may be told in any language, the code counts"),
		alarm(`^procedure of the study,`, `36554-4`, "LOINC procedure codes are in CID 100 by reference"),
	}, complaints)
}
