package dicom

// The uncompressed transfer syntaxes (PS3.5 annexes A.1 to A.3).
const (
	ImplicitVRLittleEndian = "1.2.840.10008.1.2"
	ExplicitVRLittleEndian = "1.2.840.10008.1.2.1"
	ExplicitVRBigEndian    = "1.2.840.10008.1.2.2"
)

func init() {
	register(syntax{Syntax: Syntax{UID: ImplicitVRLittleEndian, Name: "Implicit VR Little Endian"}, enc: coding{implicit: true}})
	register(syntax{Syntax: Syntax{UID: ExplicitVRLittleEndian, Name: "Explicit VR Little Endian"}})
	register(syntax{Syntax: Syntax{UID: ExplicitVRBigEndian, Name: "Explicit VR Big Endian (retired)"}, enc: coding{big: true}})
}
