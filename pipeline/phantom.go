package pipeline

import "strings"

// PhantomPatientID is the Patient ID of every synthetic radiograph that the phantom package draws.
const PhantomPatientID = "CHATXRAY-PHANTOM"

// IsPhantom reports whether a header is of a synthetic radiograph, so that every report about it can say so: the Patient ID is
// ours, or Quality Control Image (0028,0300) is YES.
func (d Dataset) IsPhantom() bool {
	return strings.HasPrefix(d.String(TagPatientID), PhantomPatientID) || d.String(TagQualityControlImage) == "YES"
}
