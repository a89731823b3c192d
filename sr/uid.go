package sr

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"chatxray/pipeline"
)

// space is the name space of every UID that this package derives. It never changes.
var space = uuid.MustParse("5f0c4a1e-7d0b-4c0e-9a55-c4a77a1ed1c0")

// derive makes a UID from a name: "2.25." and the decimal value of a UUID (PS3.5 section B.2), which is a sha256 sum of the name
// cut to a UUID of version 8 (RFC 9562).
func derive(name ...string) string {
	id := uuid.NewHash(sha256.New(), space, []byte(strings.Join(name, "\n")), 8)
	return "2.25." + new(big.Int).SetBytes(id[:]).String()
}

// identity names one document of a reading by what it is made from: the study, the set of inputs, the model bundle, the kind and
// the revision. An archive counts revisions and keeps each reading, so a retry has the same name and content. A reading of no archive
// (revision 0) can be made again with other times, so its time is part of the name.
func identity(r *pipeline.Reading, kind pipeline.DocumentKind) string {
	var inputs []string
	for _, ref := range r.Inputs {
		inputs = append(inputs, fmt.Sprintf("%s#%d", ref.Digest, ref.Frame))
	}
	slices.Sort(inputs)
	name := fmt.Sprintf("%s\n%s\n%s\n%s\n%d",
		r.StudyInstanceUID, strings.Join(slices.Compact(inputs), "\n"), r.Model.Digest, kind, r.Revision)
	if r.Revision == 0 {
		name += "\n" + r.Created.UTC().Format(time.RFC3339Nano)
	}
	return name
}

// InstanceUID is the SOP Instance UID of a reading's document of a kind.
func InstanceUID(r *pipeline.Reading, kind pipeline.DocumentKind) string {
	return derive("instance", identity(r, kind))
}

// DeviceUID is the Device UID of a model bundle: the same wherever the bundle runs.
func DeviceUID(m pipeline.ModelRef) string { return derive("device", m.Digest.String()) }
