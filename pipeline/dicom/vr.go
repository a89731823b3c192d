package dicom

// form is how the value of a value representation is laid out (PS3.5 section 6.2).
type form uint8

const (
	formNone  form = iota // no VR of the standard
	formText              // text with several values
	formLine              // text with one value, in which a backslash is text
	formUint              // binary integers
	formInt               // the same, signed
	formTag               // AT
	formFloat             // FL FD
	formBytes             // OB UN, and the O* words that are swapped by size
	formItems             // SQ
)

type vrInfo struct {
	form form
	size int  // of one binary value or word; 1 for text and bytes
	long bool // explicit VR writes its length in 32 bits (PS3.5 section 7.1.2)
	// charset: Specific Character Set applies to it.
	charset bool
	// lead: leading spaces are padding too.
	lead bool
}

// vrOf describes a VR; formNone where the two bytes are none.
func vrOf(vr string) vrInfo {
	switch vr {
	case "AE", "CS", "DS", "IS", "AS", "DA", "TM", "DT", "UI":
		return vrInfo{form: formText, size: 1, lead: true}
	case "LO", "SH":
		return vrInfo{form: formText, size: 1, charset: true, lead: true}
	case "PN":
		return vrInfo{form: formText, size: 1, charset: true}
	case "UC":
		return vrInfo{form: formText, size: 1, long: true, charset: true}
	case "ST", "LT":
		return vrInfo{form: formLine, size: 1, charset: true}
	case "UT":
		return vrInfo{form: formLine, size: 1, long: true, charset: true}
	case "UR":
		return vrInfo{form: formLine, size: 1, long: true}
	case "US":
		return vrInfo{form: formUint, size: 2}
	case "SS":
		return vrInfo{form: formInt, size: 2}
	case "UL":
		return vrInfo{form: formUint, size: 4}
	case "SL":
		return vrInfo{form: formInt, size: 4}
	case "UV":
		return vrInfo{form: formUint, size: 8, long: true}
	case "SV":
		return vrInfo{form: formInt, size: 8, long: true}
	case "AT":
		return vrInfo{form: formTag, size: 4}
	case "FL":
		return vrInfo{form: formFloat, size: 4}
	case "FD":
		return vrInfo{form: formFloat, size: 8}
	case "OB", "UN":
		return vrInfo{form: formBytes, size: 1, long: true}
	case "OW":
		return vrInfo{form: formBytes, size: 2, long: true}
	case "OL", "OF":
		return vrInfo{form: formBytes, size: 4, long: true}
	case "OV", "OD":
		return vrInfo{form: formBytes, size: 8, long: true}
	case "SQ":
		return vrInfo{form: formItems, size: 1, long: true}
	}
	return vrInfo{}
}
