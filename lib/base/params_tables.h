/* The list of all tables. */
#ifndef PGRAD_BASE_PARAMS_TABLES_H
#define PGRAD_BASE_PARAMS_TABLES_H

#include "base/params_check.h"

extern const pgrad__params_table pgrad__params_tables[];
extern const size_t pgrad__n_params_tables;

#endif
