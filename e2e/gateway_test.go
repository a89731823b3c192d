package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program finds a program of others, or skips the test.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/bin/", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Skipf("%s is not installed (Debian package %s)", name, pkg)
	return ""
}

// background runs a program until the test ends.
func background(t *testing.T, cmd *exec.Cmd) *lockedBuffer {
	t.Helper()
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", filepath.Base(cmd.Path), log)
		}
	})
	return log
}

// page writes a file of docs/gateway with replacements, each of which must apply.
func page(t *testing.T, name, to string, replace ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", "gateway", name))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !bytes.Contains(b, []byte(replace[i])) {
			t.Fatalf("docs/gateway/%s does not say %s", name, replace[i])
		}
		b = bytes.ReplaceAll(b, []byte(replace[i]), []byte(replace[i+1]))
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGateway takes the files of docs/gateway.md: a PACS that speaks DIMSE only sends studies, and gets the reports back.
func TestGateway(t *testing.T) {
	built(t)
	orthanc, storescp, storescu := program(t, "Orthanc", "orthanc"), program(t, "storescp", "dcmtk"), program(t, "storescu", "dcmtk")
	findscu, dump2dcm := program(t, "findscu", "dcmtk"), program(t, "dump2dcm", "dcmtk")
	for _, plugin := range []string{"libOrthancDicomWeb.so", "libModalityWorklists.so"} {
		if _, err := os.Stat("/usr/share/orthanc/plugins/" + plugin); err != nil {
			t.Skipf("Orthanc's %s is not installed (Debian packages orthanc, orthanc-dicomweb)", plugin)
		}
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"storage", "worklists", "pacs", "data"} {
		if err := os.Mkdir(at(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	port := func(n int) string { return fmt.Sprint(n) }
	http, dimse, pacs, ours := freePort(t), freePort(t), freePort(t), freePort(t)
	const token = "gateway-0123456789"
	page(t, "orthanc.json", at("orthanc.json"), "/var/lib/orthanc/gateway", at("storage"), "/var/lib/orthanc/worklists", at("worklists"),
		"/etc/orthanc/chatxray.lua", at("chatxray.lua"), "change-me-0123456789", token, "4242", port(dimse), "11112", port(pacs), "8042", port(http),
		"127.0.0.1:8080", "127.0.0.1:"+port(ours))
	page(t, "chatxray.lua", at("chatxray.lua"))
	page(t, "chatxray.yaml", at("chatxray.yaml"), "8042", port(http))
	wl := at("worklists/one.dump")
	if err := os.WriteFile(wl, []byte("(0008,0050) SH [ACC1]\n(0010,0010) PN [Probe^Ada]\n(0010,0020) LO [P1]\n(0020,000d) UI [1.2.3]\n(0040,0100) SQ\n(fffe,e000) -\n"+
		"(0008,0060) CS [DX]\n(0040,0001) AE [ROOM1]\n(0040,0002) DA [20260102]\n(0040,0003) TM [1015]\n(fffe,e00d) -\n(fffe,e0dd) -\n(0040,1001) SH [RP1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(dump2dcm, "+te", wl, at("worklists/one.wl")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	background(t, exec.Command(storescp, "-v", "--aetitle", "PACS", "--output-directory", at("pacs"), "+xa", "--promiscuous", port(pacs)))
	said := background(t, exec.Command(orthanc, at("orthanc.json")))
	eventually(t, time.Minute, "Orthanc to start", func() error { _, err := get("http://127.0.0.1:" + port(http) + "/system"); return err })

	send := func(syntax, option string) (study string) {
		t.Helper()
		file, study := phantom(t, "--syntax", syntax, "--seed", port(len(syntax)))
		if out, err := exec.Command(storescu, "-v", option, "--aetitle", "MODALITY", "--call", "CHATXRAY", "127.0.0.1", port(dimse), file).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return study
	}
	got := func(study string) error {
		files, _ := filepath.Glob(at("pacs/*"))
		found := map[string]int{}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if bytes.Contains(b, []byte(study)) {
				found[strings.SplitN(filepath.Base(f), ".", 2)[0]]++
			}
		}
		if len(found) != 2 {
			return fmt.Errorf("the PACS has %d kinds of reports of %d files", len(found), len(files))
		}
		return nil
	}
	up := keepDown(t, ours)
	first := send("explicit", "-xi")
	// ChatXRay is down: the study waits in the gateway, and its job is tried again.
	eventually(t, time.Minute, "a forwarding job that fails", func() error {
		if !strings.Contains(said.String(), "Error in a job") { // Orthanc's list of jobs need not show it: a job is begun anew at once
			return fmt.Errorf("Orthanc does not speak of one")
		}
		return nil
	})
	up()
	t.Setenv("GATEWAY_TOKEN", token)
	s := serve(t, at("data"), "--config", at("chatxray.yaml"), "--listen", "127.0.0.1:"+port(ours))
	eventually(t, 3*time.Minute, "the reports in the PACS, once ChatXRay is back", func() error { return got(first) })
	for _, study := range []string{send("jpeg-lossless", "-xs"), send("rle", "-xr")} {
		eventually(t, 3*time.Minute, "the reports of a compressed study in the PACS", func() error { return got(study) })
	}
	if strings.Contains(s.log.String(), `"status":401`) || !strings.Contains(s.log.String(), `"by":"token:gateway"`) {
		t.Error("the gateway did not show its token")
	}
	for want, key := range map[int]string{1: "ScheduledProcedureStepSequence[0].Modality=DX", 0: "ScheduledProcedureStepSequence[0].Modality=MR"} {
		out, err := exec.Command(findscu, "-v", "-W", "--call", "CHATXRAY", "-k", "PatientName", "-k", "AccessionNumber", "-k", key, "127.0.0.1", port(dimse)).CombinedOutput()
		if err != nil || strings.Count(string(out), "[ACC1") != want {
			t.Errorf("worklist with %s: %v\n%s", key, err, out)
		}
	}
}

// keepDown takes a port without listening: connections to it are refused, and nobody else gets it meanwhile.
func keepDown(t *testing.T, p int) (release func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() { syscall.Close(fd) })
	t.Cleanup(release)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: p, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return release
}
